//! Where a token may be found in a request.

/// The places of a request that a token may be in, as they were sent.
#[derive(Clone, Debug)]
pub struct Credentials<'a, C> {
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// What follows the question mark of the target.
    pub query: Option<&'a str>,
    /// Every `Cookie` header.
    pub cookies: C,
    /// The cookie to look for.
    pub cookie_name: Option<&'a str>,
}

impl<'a, C: IntoIterator<Item = &'a str>> Credentials<'a, C> {
    /// The token that counts: that of the header (RFC 6750, 2.1), else of the query (2.3, by our
    /// name for it), else of the cookie. An empty one is none.
    pub fn find(self) -> Option<&'a str> {
        let query = || query_value(self.query?, "token");
        let name = self.cookie_name;
        let cookie = || {
            let mut cookies = self.cookies.into_iter();
            cookies.find_map(|header| cookie_value(header, name?))
        };
        let header = self.authorization.and_then(bearer);
        header.or_else(query).or_else(cookie)
    }
}

/// RFC 6750, 2.1; RFC 9110, 11.1: the scheme in any case, one or more spaces.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The first value of this name. Tokens need no percent-encoding (RFC 7515, 2), so none is undone.
fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let found = pairs.find(|(key, value)| *key == name && !value.is_empty());
    found.map(|(_, value)| value)
}

/// RFC 6265, 4.2.1.
fn cookie_value<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = header.split(';').filter_map(|pair| pair.split_once('='));
    let found =
        pairs.find(|(key, value)| key.trim_ascii() == name && !value.trim_ascii().is_empty());
    found.map(|(_, value)| value.trim_ascii().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(
        authorization: Option<&'a str>,
        query: Option<&'a str>,
        cookies: &[&'a str],
    ) -> Option<&'a str> {
        let cookies = cookies.to_vec();
        let cookie_name = Some("session");
        let credentials = Credentials {
            authorization,
            query,
            cookies,
            cookie_name,
        };
        credentials.find()
    }

    #[test]
    fn the_header_counts_before_the_query_and_the_query_before_the_cookie() {
        let (header, query, cookie) = (Some("Bearer h"), Some("token=q"), ["session=c"]);
        assert_eq!(find(header, query, &cookie), Some("h"));
        assert_eq!(find(None, query, &cookie), Some("q"));
        assert_eq!(find(None, None, &cookie), Some("c"));
        assert_eq!(find(None, None, &[]), None);
    }

    #[test]
    fn a_bearer_is_recognised_in_any_case_and_other_schemes_are_none() {
        for header in ["bearer t", "BEARER  t ", "Bearer t"] {
            assert_eq!(find(Some(header), None, &[]), Some("t"));
        }
        for header in ["Basic dTpw", "Bearer", "Bearer ", "Bearert", ""] {
            assert_eq!(find(Some(header), None, &[]), None, "{header}");
        }
    }

    #[test]
    fn names_are_compared_whole_and_empty_values_are_none() {
        assert_eq!(
            find(None, Some("xtoken=a&token=&token=b&token=c"), &[]).unwrap(),
            "b"
        );
        assert_eq!(find(None, Some("Token=a&token"), &[]), None);
        assert_eq!(find(None, None, &["mysession=a; session2=b"]), None);
        assert_eq!(
            find(None, None, &["a=b", "c=d; session=\"e\" "]).unwrap(),
            "e"
        );
    }

    #[test]
    fn without_a_name_no_cookie_is_looked_at() {
        let credentials = Credentials {
            authorization: None,
            query: None,
            cookies: ["session=c"],
            cookie_name: None,
        };
        assert_eq!(credentials.find(), None);
    }
}
