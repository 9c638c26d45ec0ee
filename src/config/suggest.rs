//! "Did you mean": the known name nearest to one that is not known.

/// The one of `names` that `name` most likely stands for; nothing when none is near. All names
/// begin with `prefix`, which is left out of the comparison.
pub(super) fn nearest(
    name: &str,
    prefix: &str,
    names: impl Iterator<Item = String>,
) -> Option<String> {
    let bare = |name: &str| {
        name.strip_prefix(prefix)
            .unwrap_or(name)
            .to_ascii_lowercase()
    };
    let wanted = bare(name);
    // Long names come from hostile or broken places; the distance is quadratic.
    if wanted.len() > NAME_BYTES_MAX {
        return None;
    }
    let ranked = names.filter_map(|candidate| {
        let known = bare(&candidate);
        let edits = distance(&wanted, &known);
        let contained = wanted.len() >= 4 && (known.contains(&wanted) || wanted.contains(&known));
        (contained || edits * 3 <= known.len().max(wanted.len())).then_some((edits, candidate))
    });
    ranked.min().map(|(_, candidate)| candidate)
}

/// The number of insertions, removals and replacements between two names, and of neighbours
/// swapped (which counts once, as it is one slip of the fingers).
fn distance(from: &str, to: &str) -> usize {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let width = to.len() + 1;
    let mut edits: Vec<usize> = vec![0; (from.len() + 1) * width];
    for row in 0..=from.len() {
        for column in 0..=to.len() {
            let at = row * width + column;
            if row == 0 || column == 0 {
                edits[at] = row + column;
                continue;
            }
            let same = usize::from(from[row - 1] != to[column - 1]);
            let mut least = edits[at - width - 1] + same;
            least = least.min(edits[at - width] + 1).min(edits[at - 1] + 1);
            let swapped = row > 1
                && column > 1
                && from[row - 1] == to[column - 2]
                && from[row - 2] == to[column - 1];
            if swapped {
                least = least.min(edits[at - 2 * width - 2] + 1);
            }
            edits[at] = least;
        }
    }
    edits[from.len() * width + to.len()]
}

const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn suggested(name: &str) -> Option<String> {
        let names = [
            "TIDEMILL_LISTEN",
            "TIDEMILL_LOG",
            "TIDEMILL_LOG_FORMAT",
            "TIDEMILL_MAX_CONNECTIONS",
        ];
        nearest(name, "TIDEMILL_", names.into_iter().map(str::to_owned))
    }

    #[test]
    fn a_slip_of_the_fingers_finds_the_name_that_was_meant() {
        let slips = [
            ("TIDEMILL_LISTNE", "TIDEMILL_LISTEN"),
            ("TIDEMILL_LISTE", "TIDEMILL_LISTEN"),
            ("TIDEMILL_LOGS", "TIDEMILL_LOG"),
            ("TIDEMILL_LOGFORMAT", "TIDEMILL_LOG_FORMAT"),
            ("TIDEMILL_MAX_CONECTIONS", "TIDEMILL_MAX_CONNECTIONS"),
            ("TIDEMILL_CONNECTIONS", "TIDEMILL_MAX_CONNECTIONS"),
            ("TIDEMILL_max_connections", "TIDEMILL_MAX_CONNECTIONS"),
        ];
        for (slip, meant) in slips {
            assert_eq!(suggested(slip).as_deref(), Some(meant), "{slip}");
        }
    }

    #[test]
    fn a_name_like_no_other_finds_none() {
        for name in [
            "TIDEMILL_",
            "TIDEMILL_X",
            "TIDEMILL_DATABASE_URL",
            "TIDEMILL_TLS_CERT",
        ] {
            assert_eq!(suggested(name), None, "{name}");
        }
        assert_eq!(
            suggested(&format!("TIDEMILL_LISTEN{}", "N".repeat(100_000))),
            None
        );
    }

    #[test]
    fn the_distance_counts_slips() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("abc", "axc"), 1);
        assert_eq!(distance("abc", "acb"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
