//! The least rights of each user in Redis.

use super::{CHANNEL, entry::PREFIX, state};
use crate::grants::{Names, Subject};

/// Who needs a command.
#[derive(Clone, Copy)]
enum Need {
    /// Every program: it reads or writes entries, or tests its connection.
    All,
    /// The api only.
    Api,
    /// The worker only.
    Worker,
    /// The worker and the operator.
    NotApi,
    /// Every program, if Redis is a cluster.
    Cluster,
}

impl Need {
    fn covers(self, subject: Subject, is_cluster: bool) -> bool {
        match self {
            Self::All => true,
            Self::Api => subject == Subject::Api,
            Self::Worker => subject == Subject::Worker,
            Self::NotApi => subject != Subject::Api,
            Self::Cluster => is_cluster,
        }
    }
}

/// The commands that our programs and their libraries send, or run in a script. `AUTH` and `HELLO`
/// need no right.
const COMMANDS: [(&str, Need); 21] = [
    ("asking", Need::Cluster),
    ("cluster|nodes", Need::Cluster),
    ("cluster|slots", Need::Cluster),
    ("del", Need::All),
    ("evalsha", Need::All),
    ("hdel", Need::NotApi),
    ("hget", Need::All),
    ("hmget", Need::All),
    ("hset", Need::All),
    ("hstrlen", Need::All),
    ("info", Need::All),
    ("pexpire", Need::All),
    ("ping", Need::All),
    ("publish", Need::All),
    ("randomkey", Need::Worker),
    ("scan", Need::NotApi),
    ("script|load", Need::All),
    ("subscribe", Need::Api),
    ("time", Need::All),
    ("unlink", Need::NotApi),
    ("unwatch", Need::NotApi),
];

/// Returns one line of an ACL file for each user: the least rights, and no password.
///
/// `is_cluster` adds the commands that find the masters of a cluster. `selects_database` adds the
/// command that a URL with a database number needs.
pub fn acl(names: &Names, is_cluster: bool, selects_database: bool) -> String {
    let mut text = String::new();
    for (name, subjects) in names.subjects() {
        text += &line(name, &subjects, is_cluster, selects_database);
        text.push('\n');
    }
    text
}

fn line(name: &str, subjects: &[Subject], is_cluster: bool, selects_database: bool) -> String {
    // The api only reads the state of the cache as a whole.
    let state = match subjects.iter().all(|subject| *subject == Subject::Api) {
        true => format!("%R~{}", state::KEY),
        false => format!("~{}", state::KEY),
    };
    let mut line =
        format!("user {name} on resetkeys ~{PREFIX}* {state} resetchannels &{CHANNEL} -@all");
    for (command, need) in COMMANDS {
        let is_needed = |subject: &Subject| need.covers(*subject, is_cluster);
        if subjects.iter().any(is_needed) {
            line += " +";
            line += command;
        }
    }
    if selects_database {
        line += " +select";
    }
    line
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// Commands that only the libraries send: to test a pooled connection, and to follow a cluster.
    const OF_LIBRARIES: [&str; 3] = ["asking", "cluster|slots", "unwatch"];

    /// Methods of the library that send a command.
    const METHODS: [(&str, &str); 7] = [
        (".publish(", "publish"),
        (".subscribe(", "subscribe"),
        (".ping::", "ping"),
        (".load_script(", "script|load"),
        (".load_async(", "script|load"),
        (".invoke_async(", "evalsha"),
        (".invoke_script(", "evalsha"),
    ];

    /// Returns the word in quotes behind each `start`.
    fn words<'s>(text: &'s str, start: &'static str) -> impl Iterator<Item = String> + use<'s> {
        text.match_indices(start).filter_map(move |(at, _)| {
            let word = text[at + start.len()..].split(['"', '\'']).next()?;
            Some(word.to_lowercase())
        })
    }

    /// Returns the commands in the source of this folder, without its tests.
    fn commands_in_source() -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cache");
        for file in fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            if path.ends_with("acl.rs") || path.is_dir() {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]").next().unwrap_or_default();
            for start in [
                "cmd(\"",
                "command.arg(\"HM",
                "change_state(&[\"",
                "redis.call('",
                "redis.pcall('",
                "    {'",
            ] {
                let words = words(text, start).map(|word| match start {
                    "command.arg(\"HM" => format!("hm{word}"),
                    _ => word,
                });
                found.extend(words);
            }
            found.extend(
                METHODS
                    .iter()
                    .filter(|(method, _)| text.contains(method))
                    .map(|(_, command)| (*command).to_owned()),
            );
        }
        // Its first argument is the subcommand.
        if found.remove("cluster") {
            found.insert("cluster|nodes".to_owned());
        }
        found
    }

    #[test]
    fn every_command_in_the_source_has_its_line_and_no_other() {
        let mut expected = commands_in_source();
        assert!(expected.len() > 12, "{expected:?}");
        expected.extend(OF_LIBRARIES.map(str::to_owned));
        let listed: BTreeSet<String> = COMMANDS
            .iter()
            .map(|(command, _)| (*command).to_owned())
            .collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_user_has_only_what_its_programs_need() {
        let names = Names {
            migrate: "m".to_owned(),
            worker: "w".to_owned(),
            api: "a".to_owned(),
            operator: "o".to_owned(),
        };
        let text = acl(&names, false, false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[1].starts_with(
                "user a on resetkeys ~order:* %R~order-cache resetchannels &order-changes -@all \
                 +del +evalsha "
            ),
            "{text}"
        );
        for absent in ["+hdel", "+unlink", "+scan", "+randomkey", "+cluster"] {
            assert!(!lines[1].contains(absent), "{text}");
        }
        assert!(lines[0].contains("~order-cache") && !lines[0].contains("%R"));
        assert!(lines[0].contains("+randomkey") && !lines[2].contains("+randomkey"));
        let cluster = acl(&names, true, true);
        assert!(cluster.lines().all(|line| line.contains("+cluster|slots")));
        assert!(cluster.lines().all(|line| line.ends_with("+select")));
    }
}
