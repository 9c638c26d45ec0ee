//! What everybody may do with every kind of channel, written out; and laws that hold whatever a
//! namespace grants.

use core::time::Duration;

use proptest::prelude::*;

use super::{Action, Asker, Denied, Exposure, Namespace, Namespaces, Via};

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

fn namespaces(is_loopback_only: bool, has_token_keys: bool) -> Namespaces {
    Namespaces::new(Exposure {
        is_loopback_only,
        has_token_keys,
    })
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

fn any_namespace() -> impl Strategy<Value = Namespace> {
    any::<[bool; 16]>().prop_map(|flags| Namespace {
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
    })
}

const CHANNELS: [&str; 10] = [
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
];

proptest! {
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
        let is_closed = channel != "chat" && channel != "x#42" || namespace.protected;
        let shows_proof = is_proven && via != Via::Raw;
        if may(&asker) {
            let was_let_in = is_subscribed && action != Action::Subscribe;
            prop_assert!(!is_closed || shows_proof || was_let_in);
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
