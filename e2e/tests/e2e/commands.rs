//! What all command lines have in common: closed pipes, errors, colours, help and completions; and
//! the page that lists the commands.

use std::{
    collections::BTreeSet,
    env, fs, io,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use e2e::program;

const PROGRAMS: [&str; 3] = ["worker", "api", "producer"];
const PAGE: &str = "docs/commands.md";
const BEGIN: &str = "<!-- begin: code -->\n";
const END: &str = "<!-- end: code -->\n";
const RENEW: &str = "RENEW_PAGES=1 cargo test -p e2e --test e2e commands";

/// The environment must not influence the tests.
fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program(name));
    command
        .args(arguments)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap())
        .stdin(Stdio::null());
    command
}

fn run(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let variables = variables.iter().copied();
    command(name, arguments).envs(variables).output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn help(name: &str, arguments: &[&str]) -> String {
    let output = run(name, &[arguments, &["--help"]].concat(), &[]);
    assert!(output.status.success(), "{name} {arguments:?}");
    text(output.stdout)
}

/// Variables with which `api serve` logs that it starts, and then fails: the address belongs to
/// documentation (RFC 5737).
const UNUSABLE: [(&str, &str); 2] = [("API_ADDR", "192.0.2.1:1"), ("ADMIN_ADDR", "127.0.0.1:0")];

/// A pipe without a reader.
fn closed_pipe() -> Stdio {
    let (_, writer) = io::pipe().unwrap();
    writer.into()
}

#[test]
fn a_closed_pipe_ends_every_program_quietly() {
    for (name, arguments) in [
        ("worker", &["--help"][..]),
        ("worker", &["completions", "bash"]),
        ("api", &["openapi"]),
        ("api", &["openapi", "--yaml"]),
        ("api", &["completions", "zsh"]),
        ("producer", &["--version"]),
        ("producer", &["completions", "fish"]),
        ("producer", &["generate", "-n", "1000", "-o", "-"]),
        ("producer", &["generate", "-o", "/dev/null"]),
    ] {
        let output = command(name, arguments)
            .stdout(closed_pipe())
            .output()
            .unwrap();
        let errors = text(output.stderr);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{name} {arguments:?}: {errors}"
        );
        assert_eq!(errors, "", "{name} {arguments:?}");
    }
}

#[test]
fn no_program_panics_if_standard_error_is_closed() {
    for (name, arguments, variables, code) in [
        ("worker", &["run"][..], &[("LOG_FORMAT", "xml")][..], 1),
        ("api", &["health"], &[("ADMIN_ADDR", "127.0.0.1:1")], 1),
        ("api", &["serve"], &[("LOG_FORMAT", "xml")], 1),
        // Logs, and then fails.
        ("api", &["serve"], &UNUSABLE, 1),
        ("producer", &["nonsense"], &[], 2),
    ] {
        let status = command(name, arguments)
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(closed_pipe())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(code), "{name} {arguments:?}");
    }
}

#[test]
fn errors_have_one_prefix_and_documented_exit_codes() {
    for name in PROGRAMS {
        let output = run(name, &["nonsense"], &[]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        let errors = text(output.stderr);
        assert!(
            errors.starts_with("error: unrecognized subcommand 'nonsense'\n"),
            "{errors}"
        );
        // clap documents its own exit code, and the help lists all of them.
        let help = help(name, &[]);
        for code in ["\n  0  ", "\n  1  ", "\n  2  "] {
            assert!(help.contains(code), "{help}");
        }
    }
    let missing = ["send", "--file", "/nowhere/at/all"];
    let health = ["health"];
    let nowhere = [("ADMIN_ADDR", "127.0.0.1:1")];
    for (name, arguments, variables) in [
        ("producer", &missing[..], &[][..]),
        ("worker", &health, &nowhere),
        ("api", &health, &nowhere),
    ] {
        let output = run(name, arguments, variables);
        assert_eq!(output.status.code(), Some(1), "{name}");
        let errors = text(output.stderr);
        assert!(
            errors.starts_with("error: ") && errors.lines().count() == 1,
            "{errors}"
        );
        // The cause is quoted once.
        let causes = errors.matches("(os error ").count();
        assert!(causes <= 1, "{errors}");
    }
}

#[test]
fn colours_need_a_terminal_and_no_color_turns_them_off() {
    let pretty = ("LOG_FORMAT", "pretty");
    let forced = ("CLICOLOR_FORCE", "1");
    let said = |name: &str, arguments: &[&str], variables: &[(&str, &str)]| {
        let variables = [&UNUSABLE[..], &[pretty], variables].concat();
        let output = run(name, arguments, &variables);
        text(output.stderr) + &text(output.stdout)
    };
    for (name, arguments, sample) in [
        // Errors and help of clap, our errors, and log lines.
        ("worker", &["nonsense"][..], "error:"),
        ("api", &["--help"], "Usage:"),
        ("worker", &["health"], "error:"),
        ("api", &["serve"], "INFO"),
    ] {
        let has_colour = |variables: &[(&str, &str)]| {
            let said = said(name, arguments, variables);
            let line = said.lines().find(|line| line.contains(sample));
            line.unwrap_or_else(|| panic!("{name}: {said}"))
                .contains('\u{1b}')
        };
        assert!(!has_colour(&[]), "{name} {arguments:?}");
        assert!(has_colour(&[forced]), "{name} {arguments:?}");
        let both = [forced, ("NO_COLOR", "1")];
        assert!(!has_colour(&both), "{name} {arguments:?}");
    }
}

#[test]
fn the_help_of_a_program_lists_exactly_its_variables() {
    for name in PROGRAMS {
        let help = help(name, &[]);
        let (_, list) = help.split_once("\nEnvironment variables:\n").unwrap();
        let shown: BTreeSet<&str> = list
            .lines()
            .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
            .map(|line| line.trim().split(',').next().unwrap())
            .collect();
        let read: BTreeSet<&str> = shared::config::variables()
            .filter(|variable| variable.is_read_by(name))
            .map(|variable| variable.name)
            .collect();
        assert_eq!(shown, read, "{name}");
        assert!(list.contains("RUST_LOG\n"), "{name}");
        assert!(
            help.lines().all(|line| line.chars().count() <= 100),
            "{help}"
        );
    }
    assert!(help("worker", &[]).contains("  KAFKA_GROUP_ID\n"));
    assert!(!help("producer", &[]).contains("  KAFKA_GROUP_ID\n"));
    assert!(help("api", &[]).contains("[default: 0.0.0.0:8080]"));
}

#[test]
fn completions_work_in_bash_and_exist_for_other_shells() {
    for (name, word, expected) in [
        ("worker", "dead", "dead-letters"),
        ("api", "open", "openapi"),
        ("producer", "gen", "generate"),
    ] {
        let script = format!(
            "source <(\"$0\" completions bash); COMP_WORDS=({name} {word}); COMP_CWORD=1; \
             _{name} {name} {word} {name}; echo \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash")
            .args(["-ec", &script])
            .arg(program(name))
            .output()
            .unwrap();
        let (completed, errors) = (text(output.stdout), text(output.stderr));
        assert_eq!(
            (completed.trim(), errors.as_str()),
            (expected, ""),
            "{name}"
        );
        for (shell, begin) in [
            ("zsh", "#compdef "),
            ("fish", ""),
            ("elvish", ""),
            ("powershell", ""),
        ] {
            let output = run(name, &["completions", shell], &[]);
            let script = text(output.stdout);
            assert!(output.status.success(), "{shell}");
            assert!(
                script.starts_with(begin) && script.contains(expected),
                "{shell}"
            );
        }
    }
}

/// Returns the names of the subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<&str> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else {
        return Vec::new();
    };
    list.lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

/// Describes a command and its subcommands.
fn describe(name: &str, path: &[&str], page: &mut String) {
    let help = help(name, path);
    // docs/configuration.md lists the variables.
    let shown = help.split("\n\nEnvironment variables:").next().unwrap();
    let title = [&[name][..], path].concat().join(" ");
    let level = if path.is_empty() { "##" } else { "###" };
    *page += &format!("{level} `{title}`\n\n");
    for line in shown.trim_end().lines() {
        *page += format!("    {line}").trim_end();
        page.push('\n');
    }
    page.push('\n');
    for subcommand in subcommands(&help) {
        describe(name, &[path, &[subcommand]].concat(), page);
    }
}

#[test]
fn the_page_shows_the_help_of_every_command() {
    let mut generated = String::new();
    for name in PROGRAMS {
        describe(name, &[], &mut generated);
    }
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(PAGE);
    let page = fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).unwrap();
    let (part, tail) = rest.split_once(END).unwrap();
    let generated = format!("\n{}\n\n", generated.trim());
    if env::var_os("RENEW_PAGES").is_some() {
        return fs::write(path, format!("{head}{BEGIN}{generated}{END}{tail}")).unwrap();
    }
    let differs = generated
        .lines()
        .zip(part.lines())
        .find(|(expected, found)| expected != found);
    assert!(
        part == generated,
        "{PAGE} differs from the programs; renew it with `{RENEW}`\n(expected, found): {differs:#?}"
    );
}
