//! Generates the Rust client: `order-client-generator DOCUMENT FOLDER`. The result is a crate, as
//! `cargo progenitor --interface builder --include-client false` writes it.

use std::{env, error::Error, fs, path::Path};

use openapiv3::OpenAPI;
use progenitor_impl::{GenerationSettings, Generator, InterfaceStyle};

/// Manifest of the client, with the packages that the generated code uses.
const MANIFEST: &str = r#"[package]
name = "order-client"
version = "0.1.0"
edition = "2024"
license = "MIT"

[dependencies]
bytes = "1.9"
chrono = { version = "0.4", default-features = false, features = ["serde"] }
futures-core = "0.3"
progenitor-client = "0.15.1"
regress = "0.10"
reqwest = { version = "0.13", default-features = false, features = ["json", "query", "stream"] }
serde = { version = "1.0", features = ["derive"] }
serde_urlencoded = "0.7"
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [document, folder] = arguments.as_slice() else {
        return Err("usage: order-client-generator DOCUMENT FOLDER".into());
    };
    // progenitor decodes only application/json; errors have the type application/problem+json.
    let document = fs::read_to_string(document)?;
    let document = document.replace(r#""application/problem+json""#, r#""application/json""#);
    let document: OpenAPI = serde_json::from_str(&document)?;
    let mut settings = GenerationSettings::default();
    settings.with_interface(InterfaceStyle::Builder);
    let code = Generator::new(&settings).generate_tokens(&document)?;
    let folder = Path::new(folder);
    fs::create_dir_all(folder.join("src"))?;
    fs::write(folder.join("Cargo.toml"), MANIFEST)?;
    fs::write(folder.join("src/lib.rs"), code.to_string())?;
    Ok(())
}
