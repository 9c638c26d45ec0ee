//! What everybody may do with every kind of channel, written out; and laws that hold whatever a
//! namespace grants.

use core::time::Duration;

use proptest::prelude::*;

use super::{Action, Asker, Circle, Denied, Exposure, Namespace, Namespaces, Via};
use crate::config::{Config, NamespaceEntry, NamespaceFlag, SlowPolicy};

const ACTIONS: [(Action, char); 4] = [
    (Action::Subscribe, 's'),
    (Action::Publish, 'p'),
    (Action::Presence, 'm'),
    (Action::History, 'h'),
];

const fn asker(via: Via, user: &str, is_proven: bool, is_subscribed: bool) -> Asker<'_> {
    Asker {
        via,
        user: Some(user),
        is_proven,
        is_subscribed,
    }
}

/// The columns of the tables, from left to right: two of `/raw` (nobody, the user 42; both on the
/// channel), four native ones (nobody, 42, 42 on the channel, 42 with a token for it), three of
/// Pusher (nobody, with a signature, 42 on the channel), two of PieSocket on the channel (nobody,
/// with its JWT), and the API.
const ASKERS: [Asker<'static>; 12] = [
    asker(Via::Raw, "", false, true),
    asker(Via::Raw, "42", true, true),
    asker(Via::Native, "", false, false),
    asker(Via::Native, "42", false, false),
    asker(Via::Native, "42", false, true),
    asker(Via::Native, "42", true, false),
    asker(Via::Pusher, "", false, false),
    asker(Via::Pusher, "", true, false),
    asker(Via::Pusher, "42", false, true),
    asker(Via::PieSocket, "", false, true),
    asker(Via::PieSocket, "", true, true),
    asker(Via::Api, "", false, false),
];

/// Subscribe, publish, be told members, be told history; `-` for nothing. A peer that asks for a
/// channel on which it is already is asked for its proof again, which shows as a missing `s`.
const OPEN: &str = "
    chat                 sp sp sp sp sp sp s  s  s  sp sp sp
    cache-chat           sp sp sp sp sp sp s  s  s  sp sp sp
    private-chat         p  p  -  -  p  sp -  s  p  p  sp sp
    private-cache-x      p  p  -  -  p  sp -  s  p  p  sp sp
    private-encrypted-x  -  -  -  -  -  s  -  s  -  -  s  sp
    presence-chat        pm pm -  -  pm spm - sm pm pm spm spm
    $chat                p  p  -  -  p  sp -  s  -  p  sp sp
    chat#42              p  sp -  sp sp sp -  s  s  p  sp sp
    chat#7,42            p  sp -  sp sp sp -  s  s  p  sp sp
    chat#7               p  p  -  -  p  sp -  s  -  p  sp sp
    chat#                p  p  -  -  p  sp -  s  -  p  sp sp
    #server-to-user-42   -  -  -  -  -  -  -  -  s  -  -  sp
    #server-to-user-7:4  -  -  -  -  -  -  -  -  -  -  -  sp
";

const CLOSED: &str = "
    chat                 s  sp s  sp sp sp s  s  s  s  sp sp
    private-chat         -  p  -  -  p  sp -  s  p  -  sp sp
    private-encrypted-x  -  -  -  -  -  s  -  s  -  -  s  sp
    presence-chat        m  pm -  -  pm spm - sm pm m  spm spm
    $chat                -  p  -  -  p  sp -  s  -  -  sp sp
    chat#42              -  sp -  sp sp sp -  s  s  -  sp sp
    #server-to-user-42   -  -  -  -  -  -  -  -  s  -  -  sp
";

const NAMED: &str = "
    demo:chat            -  -  spmh spmh spmh spmh smh smh smh -  -  spmh
    $demo:chat           -  -  -  -  pmh spmh - smh mh -  -  spmh
    demo:chat#7          -  -  -  -  pmh spmh - smh mh -  -  spmh
    shut:chat            -  -  -  -  -  s  -  s  -  -  -  sp
    shut:chat#42         -  -  -  -  -  s  -  s  -  -  -  sp
    shut:private-x       -  -  -  -  -  s  -  s  -  -  -  sp
    bare:chat            ph ph -  -  ph s  -  s  h  ph sph sph
    bare:chat#42         ph ph -  -  ph s  -  s  h  ph sph sph
    users:chat           -  sph - s  sph s -  s  sh -  sph sph
    users:chat#42        -  sph - s  sph s -  s  sh -  sph sph
    users:chat#7         -  ph -  -  ph s  -  s  h  -  sph sph
    none:chat            -  -  -  -  -  -  -  -  -  -  -  -
    private-demo:chat    -  -  -  -  -  -  -  -  -  -  -  -
    $none:chat           -  -  -  -  -  -  -  -  -  -  -  -
    :chat                -  -  -  -  -  -  -  -  -  -  -  -
";

/// With `allow_wildcards` everywhere.
const PATTERNS: &str = "
    news.*               s  s  s  s  s  s  s  s  s  s  s  s
    news.eu.*            s  s  s  s  s  s  s  s  s  s  s  s
    shut:news.*          -  -  -  -  -  s  -  s  -  -  -  s
    open:*               -  -  -  s  s  s  -  s  s  -  -  s
    open:news.*          -  -  -  s  s  s  -  s  s  -  -  s
    bare:news.*          -  -  -  -  -  s  -  s  -  -  s  s
    bare:news            p  p  -  -  p  s  -  s  -  p  sp sp
    *                    -  -  -  -  -  -  -  -  -  -  -  -
    news*                -  -  -  -  -  -  -  -  -  -  -  -
    news.*.eu            -  -  -  -  -  -  -  -  -  -  -  -
    news.**              -  -  -  -  -  -  -  -  -  -  -  -
    *.*                  -  -  -  -  -  -  -  -  -  -  -  -
    op*:news             -  -  -  -  -  -  -  -  -  -  -  -
    *:*                  -  -  -  -  -  -  -  -  -  -  -  -
    open:ne*             -  -  -  -  -  -  -  -  -  -  -  -
    $news.*              -  -  -  -  -  -  -  -  -  -  -  -
    $open:*              -  -  -  -  -  -  -  -  -  -  -  -
    news#42.*            -  -  -  -  -  -  -  -  -  -  -  -
    #server-to-user-42.* -  -  -  -  -  -  -  -  -  -  -  -
    private-news.*       -  -  -  -  -  -  -  -  -  -  -  -
    private-encrypted-.* -  -  -  -  -  -  -  -  -  -  -  -
    presence-news.*      -  -  -  -  -  -  -  -  -  -  -  -
    none:*               -  -  -  -  -  -  -  -  -  -  -  -
";

fn namespaces(is_loopback_only: bool, has_token_keys: bool) -> Namespaces {
    let exposure = Exposure {
        is_loopback_only,
        has_token_keys,
    };
    Namespaces::from_config(&Config::default(), exposure)
}

fn check(namespaces: &Namespaces, table: &str) {
    for row in table.trim().lines() {
        let mut cells = row.split_whitespace();
        let channel = cells.next().unwrap_or_default();
        let cells: Vec<&str> = cells.collect();
        assert_eq!(cells.len(), ASKERS.len(), "{channel}");
        for (cell, asker) in cells.into_iter().zip(&ASKERS) {
            let permitted: String = ACTIONS
                .iter()
                .filter(|(action, _)| namespaces.permit(asker, *action, channel).is_ok())
                .map(|(_, letter)| letter)
                .collect();
            assert_eq!(permitted, cell.replace('-', ""), "{channel} {asker:?}");
        }
    }
}

#[test]
fn open_on_loopback() {
    check(&namespaces(true, false), OPEN);
}

#[test]
fn closed_in_the_world_and_wherever_tokens_are_verified() {
    for (is_loopback_only, has_token_keys) in [(false, false), (false, true), (true, true)] {
        check(&namespaces(is_loopback_only, has_token_keys), CLOSED);
    }
}

#[test]
fn a_namespace_grants_what_it_says() {
    let mut namespaces = namespaces(false, true);
    namespaces.insert("shut", Namespace::default());
    let users = Namespace {
        allow_subscribe_for_client: true,
        allow_publish_for_subscriber: true,
        allow_history_for_subscriber: true,
        allow_user_limited_channels: true,
        history_size: 10,
        history_ttl: Duration::from_secs(60),
        raw: true,
        ..Namespace::default()
    };
    let bare = Namespace {
        allow_publish_for_anonymous: true,
        allow_history_for_anonymous: true,
        allow_subscribe_for_anonymous: true,
        protected: true,
        ..users.clone()
    };
    namespaces.insert("users", users);
    namespaces.insert("bare", bare);
    check(&namespaces, NAMED);
    namespaces.remove("demo");
    let gone = namespaces.permit(&ASKERS[11], Action::Publish, "demo:chat");
    assert_eq!(gone, Err(Denied::UnknownNamespace));
}

#[test]
fn a_pattern_is_for_those_who_may_subscribe_to_all_that_it_stands_for() {
    let mut namespaces = namespaces(true, false);
    namespaces.unprefixed.allow_wildcards = true;
    let shut = Namespace {
        allow_wildcards: true,
        presence: true,
        history_size: 10,
        history_ttl: Duration::from_secs(60),
        ..Namespace::default()
    };
    let open = Namespace {
        allow_subscribe_for_client: true,
        allow_publish_for_client: true,
        allow_presence_for_client: true,
        allow_history_for_client: true,
        ..shut.clone()
    };
    let bare = Namespace {
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_subscriber: true,
        allow_publish_for_anonymous: true,
        allow_wildcards: true,
        protected: true,
        raw: true,
        ..Namespace::default()
    };
    namespaces.insert("shut", shut);
    namespaces.insert("open", open);
    namespaces.insert("bare", bare);
    check(&namespaces, PATTERNS);
}

#[test]
fn without_wildcards_a_name_with_a_star_is_nobody_s() {
    let namespaces = namespaces(true, false);
    for channel in ["news.*", "demo:*", "n*ws"] {
        for (asker, (action, _)) in ASKERS
            .iter()
            .flat_map(|asker| ACTIONS.map(|it| (asker, it)))
        {
            let answer = namespaces.permit(asker, action, channel);
            assert_eq!(
                answer,
                Err(Denied::Pattern),
                "{asker:?} {action:?} {channel}"
            );
        }
    }
}

#[test]
fn each_refusal_says_why() {
    let namespaces = namespaces(false, true);
    let [raw, raw_user, nobody, user, ..] = ASKERS;
    let cases = [
        (nobody, Action::Publish, "chat", Denied::Anonymous),
        (nobody, Action::Subscribe, "private-x", Denied::Unproven),
        (user, Action::Subscribe, "x#7", Denied::NotListed),
        (user, Action::Presence, "chat", Denied::NotKept),
        (user, Action::History, "chat", Denied::NotKept),
        (user, Action::Subscribe, "none:x", Denied::UnknownNamespace),
        (ASKERS[8], Action::Publish, "chat", Denied::NotAllowed),
        (raw, Action::Subscribe, "demo:x", Denied::NotRaw),
        (raw_user, Action::Subscribe, "$x", Denied::Unproven),
        (user, Action::Subscribe, "news.*", Denied::Pattern),
        (raw, Action::Subscribe, "", Denied::Name),
        (ASKERS[11], Action::Publish, "a\u{1}", Denied::Name),
    ];
    for (asker, action, channel, denied) in cases {
        let answer = namespaces.permit(&asker, action, channel);
        assert_eq!(answer, Err(denied), "{asker:?} {action:?} {channel}");
    }
}

#[test]
fn the_program_itself_is_not_asked() {
    let namespaces = namespaces(false, true);
    for (action, _) in ACTIONS {
        let program = asker(Via::Handler, "", false, false);
        assert_eq!(
            namespaces.permit(&program, action, "none:private-x"),
            Ok(())
        );
        assert_eq!(namespaces.permit(&program, action, "\0"), Err(Denied::Name));
    }
}

#[test]
fn a_configuration_changes_what_it_names_and_adds_what_is_new() {
    let exposure = Exposure {
        is_loopback_only: false,
        has_token_keys: false,
    };
    let entry = |name: &str| NamespaceEntry::new(name);
    let config = Config {
        history_size: 20,
        history_ttl: Duration::from_secs(30),
        namespaces: vec![
            entry("").with(NamespaceFlag::AllowPublishForAnonymous, true),
            NamespaceEntry {
                slow_policy: Some(SlowPolicy::Drop),
                ..entry("chat").history(7, Duration::from_secs(9))
            }
            .with(NamespaceFlag::ForceRecovery, true),
            NamespaceEntry {
                is_off: true,
                ..entry("demo")
            },
        ],
        ..Config::default()
    };
    let namespaces = Namespaces::from_config(&config, exposure);
    let built_in = Namespaces::from_config(&Config::default(), exposure);
    let names: Vec<&str> = namespaces.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["", "chat"]);
    let chat = Namespace {
        history_size: 7,
        history_ttl: Duration::from_secs(9),
        force_recovery: true,
        slow_policy: SlowPolicy::Drop,
        ..Namespace::default()
    };
    assert_eq!(namespaces.of("chat:x"), Some(&chat));
    let unprefixed = Namespace {
        allow_publish_for_anonymous: true,
        history_size: 20,
        history_ttl: Duration::from_secs(30),
        ..built_in.unprefixed.clone()
    };
    assert_eq!(namespaces.unprefixed, unprefixed);
    assert!(!built_in.unprefixed.allow_publish_for_anonymous);
    assert!(built_in.of("demo:x").is_some_and(Namespace::keeps_history));
}

#[test]
fn every_flag_of_an_entry_changes_a_flag_of_its_own() {
    let exposure = Exposure {
        is_loopback_only: true,
        has_token_keys: false,
    };
    let with = |flag: Option<NamespaceFlag>| {
        let mut entry = NamespaceEntry::new("x");
        if let Some(flag) = flag {
            entry = entry.with(flag, true);
        }
        let config = Config {
            namespaces: vec![entry],
            ..Config::default()
        };
        let namespaces = Namespaces::from_config(&config, exposure);
        namespaces.of("x:").cloned().unwrap_or_default()
    };
    assert_eq!(with(None), Namespace::default());
    let mut seen = Vec::new();
    for (key, flag) in NamespaceFlag::ALL {
        let namespace = with(Some(flag));
        assert_ne!(namespace, Namespace::default(), "{key}");
        assert!(
            format!("{namespace:?}").contains(&format!("{key}: true")),
            "{key}"
        );
        assert!(!seen.contains(&namespace), "{key}");
        seen.push(namespace);
    }
}

fn any_namespace() -> impl Strategy<Value = Namespace> {
    any::<[bool; 21]>().prop_map(|flags| Namespace {
        allow_subscribe_for_client: flags[0],
        allow_subscribe_for_anonymous: flags[1],
        allow_publish_for_client: flags[2],
        allow_publish_for_subscriber: flags[3],
        allow_publish_for_anonymous: flags[4],
        allow_presence_for_client: flags[5],
        allow_presence_for_subscriber: flags[6],
        allow_presence_for_anonymous: flags[7],
        allow_history_for_client: flags[8],
        allow_history_for_subscriber: flags[9],
        allow_history_for_anonymous: flags[10],
        allow_user_limited_channels: flags[11],
        presence: flags[12],
        history_size: u32::from(flags[13]),
        history_ttl: Duration::from_secs(1),
        raw: flags[14],
        protected: flags[15],
        allow_wildcards: flags[16],
        join_leave: flags[17],
        force_push_join_leave: flags[18],
        force_positioning: flags[19],
        force_recovery: flags[20],
        slow_policy: SlowPolicy::Close,
    })
}

const CHANNELS: [&str; 12] = [
    "chat",
    "private-x",
    "presence-x",
    "private-encrypted-x",
    "$x",
    "$x#42",
    "private-x#42",
    "x#42",
    "x#7",
    "#server-to-user-7",
    "chat.*",
    "private-x.*",
];

proptest! {
    /// What is said of a namespace is what holds in it.
    #[test]
    fn a_circle_is_who_may(
        namespace in any_namespace(),
        user in prop::option::of(prop::sample::select(&["", "42"][..])),
        is_subscribed in any::<bool>(),
        (action, _) in prop::sample::select(&ACTIONS[..]),
    ) {
        let mut namespaces = namespaces(true, false);
        let namespace = Namespace {
            presence: true,
            history_size: 1,
            ..namespace
        };
        namespaces.unprefixed = namespace.clone();
        let asker = Asker { via: Via::Native, user, is_proven: false, is_subscribed };
        let is_user = user == Some("42");
        let expected = match namespace.who(action) {
            Circle::Everybody => true,
            Circle::Users => is_user,
            Circle::Subscribers => is_subscribed,
            Circle::SubscribedUsers => is_user && is_subscribed,
            Circle::Nobody => false,
        };
        prop_assert_eq!(namespaces.permit(&asker, action, "chat").is_ok(), expected);
    }

    #[test]
    fn no_grant_opens_what_a_name_closes(
        namespace in any_namespace(),
        channel in prop::sample::select(&CHANNELS[..]),
        via in prop::sample::select(&[Via::Raw, Via::Native, Via::Pusher, Via::PieSocket][..]),
        user in prop::option::of(prop::sample::select(&["", "42"][..])),
        (is_proven, is_subscribed) in any::<(bool, bool)>(),
        (action, _) in prop::sample::select(&ACTIONS[..]),
    ) {
        let mut namespaces = namespaces(true, false);
        namespaces.unprefixed = namespace.clone();
        let asker = Asker { via, user, is_proven, is_subscribed };
        let may = |asker: &Asker<'_>| namespaces.permit(asker, action, channel).is_ok();
        let is_closed = !["chat", "x#42", "chat.*"].contains(&channel) || namespace.protected;
        let shows_proof = is_proven && via != Via::Raw;
        if may(&asker) {
            let was_let_in = is_subscribed && action != Action::Subscribe;
            prop_assert!(!is_closed || shows_proof || was_let_in);
            let is_pattern = channel.contains('*');
            prop_assert!(!is_pattern || action == Action::Subscribe && namespace.allow_wildcards);
            prop_assert!(!is_pattern || channel == "chat.*");
            prop_assert!(namespace.raw || matches!(via, Via::Native | Via::Pusher));
            let is_opaque = ["private-encrypted-x", "#server-to-user-7"].contains(&channel);
            prop_assert!(!is_opaque || action != Action::Publish);
            prop_assert!(channel != "x#42" || shows_proof || was_let_in || user == Some("42"));
            // Whoever has more to show is never let in less.
            let more = [
                Asker { is_proven: true, ..asker },
                Asker { is_subscribed: true, ..asker },
                Asker { user: Some("42"), ..asker },
                Asker { via: Via::Api, ..asker },
            ];
            for asker in more {
                prop_assert!(may(&asker), "{:?}", asker);
            }
        }
    }
}
