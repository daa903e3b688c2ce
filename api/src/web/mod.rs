//! The support page: a document, a style and a module for each concern, embedded into the binary.
//!
//! The page loads nothing from other hosts and has no inline script or style, so it works under
//! [`CONTENT_SECURITY_POLICY`]. The page is public. The routes that it calls require an API key if
//! keys are configured.

/// Value of the header `Content-Security-Policy` for every [`Asset`].
///
/// Allows only the page's own script and style, and calls to the host that served it. Trusted types
/// make the browser reject markup that a script builds from data. The icon is a `data:` link.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; \
     style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// Value of the header `Cache-Control` for every [`Asset`]. File names carry no version, so a
/// browser revalidates each time; the ETag saves the transfer.
pub const CACHE_CONTROL: &str = "no-cache";

/// A file of the support page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asset {
    /// Body of the response; UTF-8.
    pub body: &'static str,
    /// Value of the header `Content-Type`.
    pub content_type: &'static str,
    /// Value of the header `ETag`, with quotes: a strong ETag, computed from the bytes.
    pub etag: &'static str,
}

/// Returns the file at the URL path `path`, or `None` if the page has no such file.
pub fn asset(path: &str) -> Option<Asset> {
    if path == "/" {
        return Some(INDEX);
    }
    let name = path.strip_prefix("/assets/")?;
    let found = ASSETS.iter().find(|(file, _)| *file == name);
    found.map(|(_, asset)| *asset)
}

/// Builds the [`Asset`] of an embedded file. A macro, because each ETag borrows from a constant of
/// its own.
macro_rules! embed {
    ($file:literal, $content_type:expr) => {{
        const BODY: &str = include_str!($file);
        const ETAG: [u8; 18] = etag(BODY.as_bytes());
        Asset {
            body: BODY,
            content_type: $content_type,
            etag: match str::from_utf8(&ETAG) {
                Ok(etag) => etag,
                // The compiler evaluates this and would stop here.
                Err(_) => panic!("an ETag is ASCII"),
            },
        }
    }};
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

const INDEX: Asset = embed!("index.html", "text/html; charset=utf-8");

/// The files below `/assets/`, by name.
const ASSETS: &[(&str, Asset)] = &[
    ("address.js", embed!("assets/address.js", SCRIPT)),
    ("api.js", embed!("assets/api.js", SCRIPT)),
    ("app.js", embed!("assets/app.js", SCRIPT)),
    ("blocks.js", embed!("assets/blocks.js", SCRIPT)),
    ("csv.js", embed!("assets/csv.js", SCRIPT)),
    ("dom.js", embed!("assets/dom.js", SCRIPT)),
    ("events.js", embed!("assets/events.js", SCRIPT)),
    ("filters.js", embed!("assets/filters.js", SCRIPT)),
    ("format.js", embed!("assets/format.js", SCRIPT)),
    ("items.js", embed!("assets/items.js", SCRIPT)),
    ("json.js", embed!("assets/json.js", SCRIPT)),
    ("list.js", embed!("assets/list.js", SCRIPT)),
    ("live.js", embed!("assets/live.js", SCRIPT)),
    ("marks.js", embed!("assets/marks.js", SCRIPT)),
    ("order.js", embed!("assets/order.js", SCRIPT)),
    ("query.js", embed!("assets/query.js", SCRIPT)),
    ("recent.js", embed!("assets/recent.js", SCRIPT)),
    ("region.js", embed!("assets/region.js", SCRIPT)),
    ("rows.js", embed!("assets/rows.js", SCRIPT)),
    ("search.js", embed!("assets/search.js", SCRIPT)),
    ("session.js", embed!("assets/session.js", SCRIPT)),
    ("statuses.js", embed!("assets/statuses.js", SCRIPT)),
    ("style.css", embed!("assets/style.css", STYLE)),
    ("table.js", embed!("assets/table.js", SCRIPT)),
    ("token.js", embed!("assets/token.js", SCRIPT)),
];

/// FNV-1a (64 bits) of `bytes` as 16 hexadecimal digits in double quotes. The hash only
/// distinguishes builds, so it need not resist forgery.
const fn etag(bytes: &[u8]) -> [u8; 18] {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        i += 1;
    }
    let mut text = [b'"'; 18];
    let mut digit = 0;
    while digit < 16 {
        text[1 + digit] = b"0123456789abcdef"[(hash >> (60 - 4 * digit)) as usize & 0xf];
        digit += 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of `attribute` in the page.
    fn values(attribute: &str) -> Vec<&'static str> {
        let start = format!(" {attribute}=\"");
        let parts = INDEX.body.split(start.as_str()).skip(1);
        parts.filter_map(|rest| rest.split('"').next()).collect()
    }

    #[test]
    fn etag_is_fnv_1a_of_the_bytes() {
        assert_eq!(&etag(b""), b"\"cbf29ce484222325\"");
        assert_eq!(&etag(b"foobar"), b"\"85944171f73967e8\"");
        assert_eq!(INDEX.etag.as_bytes(), etag(INDEX.body.as_bytes()));
    }

    /// The modules of the page: name and text.
    fn scripts() -> impl Iterator<Item = (&'static str, &'static str)> {
        let modules = ASSETS.iter().filter(|(name, _)| name.ends_with(".js"));
        modules.map(|(name, asset)| (*name, asset.body))
    }

    #[test]
    fn page_loads_only_its_own_files() {
        assert_eq!(values("src"), ["assets/app.js"]);
        for link in values("href") {
            let own = ["#/", "docs"].contains(&link) || link.starts_with("data:image/");
            assert!(own || asset(&format!("/{link}")).is_some(), "{link}");
        }
        let style = asset("/assets/style.css").unwrap().body;
        assert!(!style.contains("url(") && !style.contains("@import"));
    }

    /// Without the preload, the browser requests the modules one level of imports after another.
    #[test]
    fn page_loads_every_module_at_once() {
        for (name, text) in scripts() {
            for import in text.split(" from \"").skip(1) {
                let import = import.split('"').next().unwrap_or_default();
                let path = import
                    .strip_prefix("./")
                    .map(|file| format!("/assets/{file}"));
                assert!(
                    path.is_some_and(|path| asset(&path).is_some()),
                    "{name}: {import}"
                );
            }
            let preload = format!("<link rel=\"modulepreload\" href=\"assets/{name}\">");
            assert_eq!(INDEX.body.contains(&preload), name != "app.js", "{name}");
        }
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/web/assets");
        for file in std::fs::read_dir(folder).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            let served = asset(&format!("/assets/{name}")).map(|asset| asset.content_type);
            let wanted = if name.ends_with(".css") {
                STYLE
            } else {
                SCRIPT
            };
            assert_eq!(served, Some(wanted), "{name}");
        }
    }

    /// The same limit as for Rust.
    #[test]
    fn modules_are_small_enough_to_read() {
        for (name, text) in scripts() {
            assert!(text.lines().count() <= 500, "{name}");
        }
    }

    #[test]
    fn page_complies_with_its_content_security_policy() {
        assert!(!INDEX.body.contains("<style") && values("style").is_empty());
        assert_eq!(INDEX.body.matches("<script").count(), values("src").len());
        for rest in INDEX.body.split(" on").skip(1) {
            let after = rest.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
            assert!(!after.starts_with('='), "an inline event handler");
        }
    }

    /// Except for what a module creates: the field of the sign-in, the blocks of an order.
    #[test]
    fn scripts_find_every_element_that_they_name() {
        let ids = values("id");
        for (module, text) in scripts() {
            for name in text.split("$(\"").skip(1) {
                let name = name.split('"').next().unwrap_or_default();
                assert!(ids.contains(&name), "{module}: {name}");
            }
        }
    }

    #[test]
    fn other_paths_are_not_pages() {
        for path in ["", "/index.html", "/assets/", "/assets/../mod.rs"] {
            assert_eq!(asset(path), None, "{path}");
        }
    }
}
