//! The registries of currencies and language subtags: the committed files and the command that
//! writes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::order::Text;
use crate::order::registry::{CURRENCIES_FILE, SUBTAGS_FILE, section};

const SUBTAG_SECTIONS: [&str; 6] = [
    "language",
    "extlang",
    "script",
    "region",
    "variant",
    "grandfathered",
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns the date in the header of a data file.
fn date(file: &str) -> &str {
    let date = file.lines().find_map(|line| line.strip_prefix("# Date: "));
    let date = date.expect("the header has a date");
    assert!(
        chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").is_ok(),
        "{date}"
    );
    date
}

#[test]
fn files_are_dated_and_sorted() {
    for (file, sections) in [
        (CURRENCIES_FILE, &["current", "historic"][..]),
        (SUBTAGS_FILE, &SUBTAG_SECTIONS),
    ] {
        date(file);
        for line in ["# Source: ", "# Licence: "] {
            assert!(file.lines().any(|found| found.starts_with(line)), "{line}");
        }
        for name in sections {
            let entries: Vec<_> = section(file, name).collect();
            assert!(!entries.is_empty(), "{name}");
            assert!(entries.is_sorted_by(|a, b| a < b), "{name}");
        }
        let headers = file.lines().filter(|line| line.starts_with('['));
        assert_eq!(headers.count(), sections.len());
    }
}

/// The release note and the page must show which registries a release contains.
#[test]
fn changelog_and_docs_name_the_dates() {
    for page in ["CHANGELOG.md", "docs/registries.md"] {
        let text = fs::read_to_string(repository().join(page)).unwrap();
        for (registry, file) in [("ISO 4217", CURRENCIES_FILE), ("subtag", SUBTAGS_FILE)] {
            let date = date(file);
            assert!(
                text.lines()
                    .any(|line| line.contains(registry) && line.contains(date)),
                "{page} has no line with {registry:?} and {date}, the date of the data file; \
                 update the page"
            );
        }
    }
}

#[test]
fn currencies_are_current_and_historic_codes() {
    for code in [
        // Added in 2021, 2022, 2024, 2025. Then a fund, test and precious metal codes.
        "VED", "SLE", "ZWG", "XCG", "XAD", "CHE", "UYW", "XSU", "XTS", "XXX", "XAU",
        // Withdrawn in 2026, 2025, 2023, 2002, 1992.
        "BGN", "ANG", "HRK", "ZWL", "DEM", "SUR",
    ] {
        assert!(Text::CURRENCY.holds(code), "{code}");
    }
    // Free codes, codes that only CLDR has, and other spellings.
    for text in [
        "NOT", "usd", "Usd", "AAA", "ZZZ", "CNH", "BTC", "US", "USDT", "\0US", "840", "ЕUR",
    ] {
        assert!(!Text::CURRENCY.holds(text), "{text}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn language_tags_are_registered_subtags_in_order() {
    for tag in [
        // Registered in 2022 and later, deprecated, or reserved for private use.
        "ajs",
        "sgn-ajs",
        "isv",
        "en-CQ",
        "iw",
        "mo",
        "en-BU",
        "qaa",
        "qtz-Qaaa-QM",
        "und-Qabx-XZ",
        "en-AA",
        "en-ZZ",
        // One of each kind, in any case.
        "zh-yue-Hant-HK",
        "ZH-YUE-hANT-hk",
        "sr-Latn",
        "es-419",
        "de-1996",
        "sl-rozaj-biske-1994",
        "en-fonipa",
        // Extensions and private use.
        "de-DE-u-co-phonebk",
        "en-t-jp-m0-und",
        "en-a-bbb-b-ccc",
        "en-0-abc",
        "en-x-a",
        "en-u-co-x-a-b",
        "x-a-12345678",
        // Tags that predate the registry.
        "i-klingon",
        "I-KLINGON",
        "en-GB-oed",
        "sgn-BE-FR",
        "zh-min-nan",
        "art-lojban",
        "i-default",
    ] {
        assert!(Text::LOCALE.holds(tag), "{tag}");
    }
    for text in [
        // Not registered.
        "qq",
        "xx",
        "xyzzy",
        "root",
        "en-Qaby",
        "en-QL",
        "en-XQQ",
        "en-12345",
        "en-abcdefgh",
        "aaj-xyz",
        "qua-qub-quc",
        // An extended language that follows another than its prefix, or a second one.
        "en-yue",
        "zh-ajs",
        "zh-cmn-yue",
        // Out of order, or twice.
        "en-US-Latn",
        "US",
        "en-US-GB",
        "de-1996-DE",
        "de-1996-1996",
        "sl-ROZAJ-rozaj",
        "en-u-co-phonebk-u-ca-buddhist",
        "en-a-bb-A-cc",
        "de-x",
        "x",
        "x-",
        "en-u",
        "en-u-x-a",
        "en-u-a-co",
        "en-x-123456789",
        "en-u-123456789",
        // Not language tags.
        "xx_123",
        "en_US",
        "en-US.UTF-8",
        "en--US",
        "-en",
        "en-",
        "en\0",
        "\0en",
        "i-nothing",
        "i",
        "en-é",
        "english",
    ] {
        assert!(!Text::LOCALE.holds(text), "{text}");
    }
}

/// Runs the command, which writes its files to `into`.
fn update(into: &Path, files: [&Path; 3]) -> Output {
    Command::new(repository().join("scripts/update-registries"))
        .arg("--into")
        .arg(into)
        .arg("--files")
        .args(files)
        .output()
        .unwrap()
}

/// Official files in a temporary folder, generated from the committed ones.
struct Official {
    folder: PathBuf,
}

impl Official {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("registries-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn target(&self) -> PathBuf {
        self.path("target")
    }

    /// Writes an ISO 4217 list: each code twice, as for a currency of two countries, and an entry
    /// without a currency.
    fn list(&self, name: &str, date: &str, codes: impl Iterator<Item = &'static str>) -> PathBuf {
        let entries: String = codes
            .flat_map(|code| [code, code])
            .map(|code| format!("<CcyNtry><CtryNm>X</CtryNm><Ccy>{code}</Ccy></CcyNtry>\n"))
            .collect();
        let text = format!("<ISO_4217 Pblshd=\"{date}\">\n<CcyNtry/>{entries}</ISO_4217>\n");
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Writes the registry of subtags, with private use subtags as ranges.
    fn subtags(&self, date: &str, more: &str) -> PathBuf {
        let mut text = format!("File-Date: {date}\n");
        let ranges = [
            ("language", "qaa..qtz"),
            ("script", "Qaaa..Qabx"),
            ("region", "QM..QZ"),
            ("region", "XA..XZ"),
        ];
        for (kind, range) in ranges {
            text.push_str(&format!(
                "%%\nType: {kind}\nSubtag: {range}\nDescription: Private use\n"
            ));
        }
        for kind in SUBTAG_SECTIONS {
            for line in section(SUBTAGS_FILE, kind) {
                let (subtag, prefix) = line.split_once(' ').unwrap_or((line, "en"));
                let is_private = ranges.iter().any(|(of, range)| {
                    let (from, to) = range.split_once("..").unwrap();
                    *of == kind
                        && from.len() == subtag.len()
                        && (from.to_lowercase()..=to.to_lowercase()).contains(&subtag.to_owned())
                });
                if is_private {
                    continue;
                }
                let name = if kind == "grandfathered" {
                    "Tag"
                } else {
                    "Subtag"
                };
                text.push_str(&format!(
                    "%%\nType: {kind}\n{name}: {subtag}\n\
                     Description: Type: x\n  Subtag: y\nPrefix: {prefix}\n"
                ));
            }
        }
        text.push_str(more);
        fs::write(self.path("registry"), text).unwrap();
        self.path("registry")
    }
}

impl Drop for Official {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn command_generates_the_committed_files_from_the_official_ones() {
    let official = Official::new("same");
    let one = official.list(
        "one",
        date(CURRENCIES_FILE),
        section(CURRENCIES_FILE, "current"),
    );
    let withdrawn = section(CURRENCIES_FILE, "historic").chain(["EUR"]);
    let three = official.list("three", "2099-01-01", withdrawn);
    let registry = official.subtags(date(SUBTAGS_FILE), "");
    let output = update(&official.target(), [&one, &three, &registry]);
    assert!(output.status.success(), "{output:?}");
    let without_source = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("# Source: "));
        lines.map(str::to_owned).collect()
    };
    for (name, committed) in [
        ("currencies.txt", CURRENCIES_FILE),
        ("subtags.txt", SUBTAGS_FILE),
    ] {
        let written = fs::read_to_string(official.target().join(name)).unwrap();
        assert!(
            without_source(&written) == without_source(committed),
            "{name} differs"
        );
    }
}

#[test]
fn command_adds_codes_and_removes_none() {
    let official = Official::new("lossless");
    let current = || section(CURRENCIES_FILE, "current");
    let historic = || section(CURRENCIES_FILE, "historic");
    let one = official.list("one", "2030-01-01", current());
    let three = official.list("three", "2030-01-01", historic());
    let registry = official.subtags("2030-01-01", "");
    assert!(
        update(&official.target(), [&one, &three, &registry])
            .status
            .success()
    );
    let written = || {
        ["currencies.txt", "subtags.txt"]
            .map(|name| fs::read_to_string(official.target().join(name)).unwrap())
    };
    let before = written();

    let older = official.list("older", "2029-12-31", current());
    let undated = official.list("undated", "", current());
    let lossy = official.list(
        "lossy",
        "2031-01-01",
        current().filter(|code| *code != "USD"),
    );
    let cut = official.list("cut", "2031-01-01", current().take(20));
    for (bad, message) in [
        (&older, "older than the current one of 2030-01-01"),
        (&undated, "has no date"),
        (&lossy, "lacks USD"),
        (&cut, "[current] has 20 entries"),
        (&official.path("missing"), "cannot read"),
    ] {
        let output = update(&official.target(), [bad, &three, &registry]);
        assert_eq!(output.status.code(), Some(1), "{message}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.contains(message), "{message}: {error}");
        assert_eq!(written(), before, "{message}");
    }

    // One currency is withdrawn and one is added. One subtag is added.
    let one = official.list(
        "one",
        "2031-01-01",
        current().filter(|code| *code != "USD").chain(["QQQ"]),
    );
    let three = official.list("three", "2031-01-01", historic().chain(["USD"]));
    let registry = official.subtags("2031-02-03", "%%\r\nType: language\r\nSubtag: testtest\r\n");
    let output = update(&official.target(), [&one, &three, &registry]);
    assert!(output.status.success(), "{output:?}");
    let [currencies, subtags] = written();
    assert_eq!(
        (date(&currencies), date(&subtags)),
        ("2031-01-01", "2031-02-03")
    );
    let (current, historic) = currencies.split_once("\n[historic]").unwrap();
    assert!(
        current.contains("\nQQQ\n") && !current.contains("USD") && historic.contains("\nUSD\n")
    );
    assert!(subtags.contains("\ntesttest\n"));
}
