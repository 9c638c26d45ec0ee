//! Names of channels that are asked for by what they look like.

/// Whether a name looks like a pattern in which `*` stands for anything.
pub fn looks_like(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let beginning = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(beginning) else {
        return false;
    };
    let Some(end) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (name, pattern) in [
            ("news", "news"),
            ("news", "*"),
            ("news.a.b", "news.*"),
            ("news.a.b", "*.b"),
            ("news.a.b", "n*.*b"),
            ("news", "ne*ws"),
        ] {
            assert!(looks_like(name, pattern), "{name} {pattern}");
        }
        for (name, pattern) in [
            ("news", "new"),
            ("news", ""),
            ("new", "ne*ew"),
            ("news.a", "news.*.a"),
            ("news", "*z*"),
        ] {
            assert!(!looks_like(name, pattern), "{name} {pattern}");
        }
    }
}
