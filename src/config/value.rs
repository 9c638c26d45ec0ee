//! The text forms of single values, read and written. An error says what is wrong with the text, as
//! a phrase that follows the value, and how to write it.

use std::collections::HashSet;
use std::hash::Hash;
use std::net::SocketAddr;
use std::time::Duration;

/// Reads a boolean in any of its usual spellings.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" => Ok(true),
        "0" | "false" | "off" | "no" => Ok(false),
        _ => Err("not a boolean, write true or false".to_owned()),
    }
}

/// Reads a whole number; `_` may group its digits.
pub fn count(text: &str) -> Result<u64, String> {
    match split_unit(text) {
        Some((number, "")) => Ok(number),
        _ => Err("not a whole number, write digits only, such as 4096".to_owned()),
    }
}

/// Reads a number of bytes: plain, or with a decimal (`KB`, `MB`, `GB`) or binary (`KiB`, `MiB`,
/// `GiB`) unit.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text).ok_or(
        "not a size, write bytes or a whole number with a unit, such as 65536, 64KiB or 1MB",
    )?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        letter @ ("k" | "m" | "g") => {
            let letter = letter.to_ascii_uppercase();
            return Err(format!(
                "{unit:?} may mean two sizes, write {number}{letter}iB or {number}{letter}B"
            ));
        }
        _ => {
            return Err(format!(
                "{unit:?} is not a unit of size, write B, KiB, MiB, GiB, KB, MB or GB"
            ));
        }
    };
    number
        .checked_mul(factor)
        .ok_or_else(|| "larger than any size".to_owned())
}

/// Reads a duration: a whole number and `ms`, `s`, `m` or `h`. Only 0 needs no unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text)
        .ok_or("not a duration, write a whole number and a unit: 500ms, 10s, 5m or 1h")?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    let duration = match unit.to_ascii_lowercase().as_str() {
        "" if number == 0 => Some(Duration::ZERO),
        "" => {
            return Err(format!(
                "a duration needs a unit, write {number}s or {number}ms"
            ));
        }
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3600),
        _ => {
            return Err(format!(
                "{unit:?} is not a unit of time, write ms, s, m or h"
            ));
        }
    };
    duration.ok_or_else(|| "longer than any duration".to_owned())
}

/// Reads one of a few words.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text));
    found
        .map(|&(_, value)| value)
        .ok_or_else(|| format!("{text:?} is not one of the words it takes"))
}

/// The word of a value: the other way of [`word`].
pub(super) fn spelling<T: Copy + PartialEq>(value: T, words: &[(&'static str, T)]) -> &'static str {
    words
        .iter()
        .find(|(_, each)| *each == value)
        .map_or("", |(word, _)| word)
}

/// Reads a list separated by commas: no empty items, none twice, at most `items_max`.
pub(super) fn list<T: Clone + Eq + Hash>(
    text: &str,
    items_max: usize,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut items = Vec::new();
    let mut seen = HashSet::new();
    for part in text.split(',').map(str::trim) {
        if part.is_empty() {
            return Err(
                "an item of the list is empty, write items separated by single commas".to_owned(),
            );
        }
        if items.len() == items_max {
            return Err(format!("more than {items_max} items"));
        }
        let item = read(part)?;
        if !seen.insert(item.clone()) {
            return Err(format!("{part:?} stands twice in the list, write it once"));
        }
        items.push(item);
    }
    Ok(items)
}

/// Reads an address to listen on: IP and port. Names are not looked up here, and a port alone does
/// not say who may connect, so both are refused with the ways to write them.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().unwrap_or_default();
        let port = port.parse::<u16>().unwrap_or(7000);
        format!(
            "{text:?} is not an IP address with a port, write 127.0.0.1:{port} or [::1]:{port} \
             for this machine only, 0.0.0.0:{port} or [::]:{port} for the world"
        )
    })
}

/// Reads a list, or the word for an empty one.
pub(super) fn list_or_off<T: Clone + Eq + Hash>(
    text: &str,
    items_max: usize,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    match text {
        _ if text.eq_ignore_ascii_case("off") => Ok(Vec::new()),
        _ => list(text, items_max, read),
    }
}

/// Writes it: the other way of [`list_or_off`].
pub(super) fn show_list_or_off<T: ToString>(items: &[T]) -> String {
    match items {
        [] => "off".to_owned(),
        items => show_list(items),
    }
}

/// Writes a size in the largest binary unit that divides it.
pub(super) fn show_size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units
        .iter()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor))
    {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// Writes a number the way [`count`] reads it.
pub(super) fn show_plain(count: u64) -> String {
    count.to_string()
}

/// Writes a size for people: three digits or so, in a binary unit.
pub fn show_size_rounded(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    match units.iter().find(|(_, shift)| bytes >> shift > 0) {
        Some((unit, shift)) => {
            let tenths = (u128::from(bytes) * 10) >> shift;
            match tenths % 10 {
                0 => format!("{} {unit}", tenths / 10),
                tenth => format!("{}.{tenth} {unit}", tenths / 10),
            }
        }
        None => format!("{bytes} B"),
    }
}

/// Writes a duration in the unit that one would say it in.
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => "0".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms >= 600_000 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

/// Writes a number with its digits in groups of three.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Writes a list the way [`list`] reads it.
pub(super) fn show_list<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// Leading digits as a number, and what follows them without the space between.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '_')
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let number = digits.replace('_', "").parse().ok()?;
    Some((number, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_read_in_each_of_their_spellings() {
        for text in ["1", "true", "on", "yes", "TRUE", "On"] {
            assert_eq!(boolean(text), Ok(true), "{text}");
        }
        for text in ["0", "false", "off", "no", "False", "OFF"] {
            assert_eq!(boolean(text), Ok(false), "{text}");
        }
        for text in ["", "2", "enable", "truee"] {
            assert!(
                boolean(text).unwrap_err().contains("true or false"),
                "{text}"
            );
        }
    }

    #[test]
    fn counts_are_digits_and_nothing_else() {
        assert_eq!(count("0"), Ok(0));
        assert_eq!(count("1_000_000"), Ok(1_000_000));
        for text in [
            "", "-1", "+1", "1.5", "1e6", "1,000", "0x10", "5 apples", "_1", "1k",
        ] {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(count("99999999999999999999").is_err(), "more than 64 bits");
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        let sizes = [
            ("65536", 65_536),
            ("0", 0),
            ("64KiB", 64 << 10),
            ("64 kib", 64 << 10),
            ("1MiB", 1 << 20),
            ("2GiB", 2 << 30),
            ("1KB", 1_000),
            ("1MB", 1_000_000),
            ("3GB", 3_000_000_000),
            ("17B", 17),
        ];
        for (text, bytes) in sizes {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "-1", "1.5MiB", "1TiB", "1 MiB x", "0x10"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(
            size("18446744073709551615GiB"),
            Err("larger than any size".to_owned())
        );
    }

    #[test]
    fn a_size_with_a_bare_letter_is_refused_with_both_readings() {
        let problem = size("64k").unwrap_err();
        assert!(
            problem.contains("64KiB") && problem.contains("64KB"),
            "{problem}"
        );
    }

    #[test]
    fn durations_need_a_unit_unless_they_are_zero() {
        let durations = [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("2 S", 2_000),
            ("0", 0),
            ("0s", 0),
        ];
        for (text, ms) in durations {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        let problem = duration("30").unwrap_err();
        assert!(
            problem.contains("30s") && problem.contains("30ms"),
            "{problem}"
        );
        for text in ["", "s", "-1s", "1.5s", "1d", "1m30s", "10 seconds"] {
            assert!(duration(text).is_err(), "{text}");
        }
        let longest = "18446744073709551615h";
        assert_eq!(
            duration(longest),
            Err("longer than any duration".to_owned())
        );
    }

    #[test]
    fn what_is_shown_is_read_as_the_same_value() {
        for shift in 0..63 {
            for near in [-1i64, 0, 1] {
                let number = (1u64 << shift).saturating_add_signed(near);
                assert_eq!(size(&show_size(number)), Ok(number));
                assert_eq!(count(&show_plain(number)), Ok(number));
                let time = Duration::from_millis(number >> 20);
                assert_eq!(duration(&show_duration(time)), Ok(time));
            }
        }
        for ms in [
            0, 1, 999, 1_000, 25_000, 60_000, 600_000, 660_000, 3_600_000, 86_400_000,
        ] {
            let time = Duration::from_millis(ms);
            assert_eq!(duration(&show_duration(time)), Ok(time));
        }
    }

    #[test]
    fn values_for_people_are_short() {
        assert_eq!(show_size(65_536), "64KiB");
        assert_eq!(show_size_rounded(25_232_015_360), "23.4 GiB");
        assert_eq!(show_size_rounded(1 << 20), "1 MiB");
        assert_eq!(show_size_rounded(1000), "1000 B");
        assert_eq!(show_size_rounded(u64::MAX), "17179869183.9 GiB");
        assert_eq!(show_duration(Duration::from_secs(25)), "25s");
        assert_eq!(show_duration(Duration::from_secs(60)), "60s");
        assert_eq!(show_duration(Duration::from_secs(900)), "15m");
        assert_eq!(show_duration(Duration::from_secs(86_400)), "24h");
        assert_eq!(show_count(0), "0");
        assert_eq!(show_count(999), "999");
        assert_eq!(show_count(1_000), "1,000");
        assert_eq!(show_count(4_194_304), "4,194,304");
    }

    #[test]
    fn a_list_has_no_empty_items_and_none_twice() {
        let read = |text: &str| Ok(text.to_owned());
        assert_eq!(
            list(" a , b ", 2, read),
            Ok(vec!["a".to_owned(), "b".to_owned()])
        );
        assert!(list("a,,b", 9, read).unwrap_err().contains("empty"));
        assert!(list("a,", 9, read).unwrap_err().contains("empty"));
        assert!(
            list("a,b,a", 9, read)
                .unwrap_err()
                .contains("\"a\" stands twice")
        );
        assert!(list("a,b,c", 2, read).unwrap_err().contains("more than 2"));
    }

    #[test]
    fn an_address_that_is_not_one_is_refused_with_the_ways_to_write_it() {
        assert_eq!(
            address("0.0.0.0:0"),
            Ok(SocketAddr::from(([0, 0, 0, 0], 0)))
        );
        assert_eq!(
            address("[::1]:7000").map(|address| address.is_ipv6()),
            Ok(true)
        );
        for text in [":8080", "8080", "localhost:8080", "*:8080"] {
            let problem = address(text).unwrap_err();
            assert!(problem.contains("127.0.0.1:8080"), "{problem}");
            assert!(problem.contains("0.0.0.0:8080"), "{problem}");
        }
        for text in [
            "::1:7000x",
            "127.0.0.1",
            "1.2.3.4:70000",
            "tcp://1.2.3.4:80",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_are_read_in_any_case_and_shown_as_listed() {
        let words = [("auto", 1), ("off", 2)];
        assert_eq!(word("Auto", &words), Ok(1));
        assert!(word("automatic", &words).is_err());
        assert_eq!(spelling(2, &words), "off");
    }
}
