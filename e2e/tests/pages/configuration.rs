//! `docs/configuration.md` and `.env.example`, compared with the structs that read the variables.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytesize::ByteSize;
use humantime::format_duration;
use syn::{
    BinOp, Expr, Field, Fields, GenericArgument, ImplItem, Item, ItemImpl, ItemStruct, Lit,
    PathArguments, Type,
};

use crate::{page, source};

const PAGE: &str = "docs/configuration.md";
const EXAMPLE: &str = ".env.example";
/// The list that `--help` of each program shows.
const LIST: &str = "shared/src/config/variables.tsv";
/// The comment after which `.env.example` lists the variables of `docker-compose.yml`.
const COMPOSE_ONLY: &str = "# --- docker-compose.yml only";
/// Read by the logger itself, not by a struct.
const LOG_FILTER: &str = "RUST_LOG";
/// The lines of [`LIST`] for variables that no struct reads.
const OTHERS: [&str; 2] = [
    "RUST_LOG\tworker,api,producer\t\tinfo\tLog messages by level and module, such as \
     `info,sqlx=debug`.",
    "NO_COLOR\tworker,api,producer\t\t\tAny value turns colours off.",
];
const SHARED: &str = "shared/src/config.rs";
const FILES: [&str; 4] = [
    "shared/src/config/services.rs",
    "shared/src/config/process.rs",
    "shared/src/config/worker.rs",
    "shared/src/config/api.rs",
];
const PROGRAMS: [&str; 3] = ["worker", "api", "producer"];

/// The variables of one struct.
struct Section {
    prefix: String,
    /// The programs that read them.
    programs: Vec<String>,
    title: String,
    variables: Vec<Variable>,
}

struct Variable {
    name: String,
    kind: String,
    /// As it would be written into the environment; `None` for an optional variable.
    default: Option<String>,
    meaning: String,
    secret: bool,
}

/// Durations of constants such as `Database::WORKER_TIMEOUT`, by path.
type Constants = BTreeMap<String, String>;

fn sections() -> Vec<Section> {
    let secrets = secrets();
    FILES
        .iter()
        .flat_map(|file| {
            let items = source::parse(file).items;
            let constants = constants(&items);
            let structs = items.iter().filter_map(|item| match item {
                Item::Struct(item) => section(item, &items, &constants, &secrets),
                _ => None,
            });
            structs.collect::<Vec<_>>()
        })
        .collect()
}

/// Reads a struct whose doc comment has the form "`PREFIX_*` (program, …): title.".
fn section(
    item: &ItemStruct,
    items: &[Item],
    constants: &Constants,
    secrets: &[String],
) -> Option<Section> {
    let doc = source::doc(&item.attrs);
    let (prefix, rest) = doc.strip_prefix('`')?.split_once("_*`")?;
    let malformed = || {
        panic!(
            "{}: write \"`{prefix}_*` (programs): title.\" above it",
            item.ident
        )
    };
    let (programs, title) = rest
        .strip_prefix(" (")
        .and_then(|rest| rest.split_once("): "))
        .unwrap_or_else(malformed);
    let Fields::Named(fields) = &item.fields else {
        return None;
    };
    let defaults = defaults(&item.ident.to_string(), items);
    let variables = fields.named.iter().filter_map(|field| {
        let field_name = field.ident.as_ref().unwrap().to_string();
        let name = format!("{prefix}_{}", field_name.to_uppercase());
        // The line of the secret names its `NAME_FILE` too.
        if name
            .strip_suffix("_FILE")
            .is_some_and(|name| secrets.iter().any(|secret| secret == name))
        {
            return None;
        }
        let kind = Kind::of(field, items);
        let default = match defaults.get(&field_name) {
            Some(expression) => kind.default(expression),
            None => None,
        };
        Some(Variable {
            secret: secrets.contains(&name),
            meaning: resolved(&source::doc(&field.attrs), constants),
            kind: kind.to_string(),
            name,
            default,
        })
    });
    Some(Section {
        prefix: format!("{prefix}_"),
        programs: programs.split(", ").map(str::to_owned).collect(),
        title: title.trim_end_matches('.').to_owned(),
        variables: variables.collect(),
    })
}

/// The type of a variable's value.
enum Kind {
    Text,
    Path,
    Integer,
    Size,
    Duration,
    Flag,
    List,
    Choice(Vec<String>),
}

impl Kind {
    fn of(field: &Field, items: &[Item]) -> Self {
        let is_size = field.attrs.iter().any(|attribute| {
            let tokens = attribute.meta.require_list().map(|list| &list.tokens);
            tokens.is_ok_and(|tokens| tokens.to_string().contains("byte_size"))
        });
        match name_of(&field.ty).as_str() {
            _ if is_size => Self::Size,
            "String" => Self::Text,
            "PathBuf" => Self::Path,
            "Duration" => Self::Duration,
            "bool" => Self::Flag,
            "Vec" => Self::List,
            "u16" | "u32" | "u64" | "usize" => Self::Integer,
            other => Self::Choice(choices(other, items)),
        }
    }

    /// Returns the default as text. An empty list and a missing value are no default.
    fn default(&self, expression: &Expr) -> Option<String> {
        match (self, expression) {
            (_, Expr::Path(path)) if path.path.is_ident("None") => None,
            (Self::List, Expr::Call(_)) => None,
            (Self::Text, Expr::MethodCall(call)) => source::text(&call.receiver),
            (Self::Flag, Expr::Lit(literal)) => match &literal.lit {
                Lit::Bool(flag) => Some(flag.value.to_string()),
                _ => None,
            },
            (Self::Integer, _) => Some(number(expression).to_string()),
            (Self::Size, _) => Some(size(number(expression))),
            (Self::Duration, _) => Some(duration(expression)),
            _ => panic!("a default that the generator cannot read"),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Text => "text",
            Self::Path => "path",
            Self::Integer => "integer",
            Self::Size => "size",
            Self::Duration => "duration",
            Self::Flag => "`true`, `false`",
            Self::List => "list",
            Self::Choice(values) => return write!(formatter, "`{}`", values.join("`, `")),
        })
    }
}

/// Returns the name of a type; of `Option<T>`, the name of `T`.
fn name_of(kind: &Type) -> String {
    let Type::Path(path) = kind else {
        panic!("a type that the generator cannot read");
    };
    let last = path.path.segments.last().unwrap();
    match &last.arguments {
        PathArguments::AngleBracketed(arguments) if last.ident == "Option" => {
            match &arguments.args[0] {
                GenericArgument::Type(inner) => name_of(inner),
                _ => panic!("a type that the generator cannot read"),
            }
        }
        _ => last.ident.to_string(),
    }
}

/// Returns the values of a field-less enum with `rename_all = "lowercase"`.
fn choices(name: &str, items: &[Item]) -> Vec<String> {
    let found = items.iter().find_map(|item| match item {
        Item::Enum(item) if item.ident == name => Some(&item.variants),
        _ => None,
    });
    let variants = found.unwrap_or_else(|| panic!("no enum {name} beside the struct"));
    let lower = |variant: &syn::Variant| variant.ident.to_string().to_lowercase();
    variants.iter().map(lower).collect()
}

/// Returns the fields of the literal that `impl Default for NAME` returns; none if the trait is
/// derived.
fn defaults(name: &str, items: &[Item]) -> BTreeMap<String, Expr> {
    let body = implementations(name, items).find_map(|item| {
        let (_, path, _) = item.trait_.as_ref()?;
        path.is_ident("Default").then_some(&item.items)
    });
    let Some(ImplItem::Fn(function)) = body.and_then(|items| items.first()) else {
        return BTreeMap::new();
    };
    let Some(syn::Stmt::Expr(Expr::Struct(literal), _)) = function.block.stmts.last() else {
        panic!("impl Default for {name} does not end with a struct literal");
    };
    let fields = literal.fields.iter().map(|field| match &field.member {
        syn::Member::Named(name) => (name.to_string(), field.expr.clone()),
        syn::Member::Unnamed(_) => unreachable!("the fields have names"),
    });
    fields.collect()
}

fn implementations<'a>(name: &'a str, items: &'a [Item]) -> impl Iterator<Item = &'a ItemImpl> {
    items.iter().filter_map(move |item| match item {
        Item::Impl(item) if name_of(&item.self_ty) == name => Some(item),
        _ => None,
    })
}

/// Returns the constants of the structs that are durations.
fn constants(items: &[Item]) -> Constants {
    let mut found = Constants::new();
    for item in items {
        let Item::Impl(item) = item else { continue };
        for constant in &item.items {
            if let ImplItem::Const(constant) = constant
                && name_of(&constant.ty) == "Duration"
            {
                let path = format!("{}::{}", name_of(&item.self_ty), constant.ident);
                found.insert(path, duration(&constant.expr));
            }
        }
    }
    found
}

/// Replaces links to constants by their values.
fn resolved(doc: &str, constants: &Constants) -> String {
    let mut text = doc.to_owned();
    for (path, value) in constants {
        text = text.replace(&format!("[`{path}`]"), &format!("`{value}`"));
    }
    text
}

/// Returns the names of the constant list `SECRETS`.
fn secrets() -> Vec<String> {
    let items = source::parse(SHARED).items;
    let list = items.iter().find_map(|item| match item {
        Item::Const(item) if item.ident == "SECRETS" => Some(&*item.expr),
        _ => None,
    });
    let Some(Expr::Array(list)) = list else {
        panic!("{SHARED} has no array SECRETS");
    };
    list.elems.iter().filter_map(source::text).collect()
}

fn number(expression: &Expr) -> u64 {
    match expression {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => number.base10_parse().unwrap(),
            _ => panic!("not a number"),
        },
        Expr::Binary(binary) => match binary.op {
            BinOp::Shl(_) => number(&binary.left) << number(&binary.right),
            BinOp::Mul(_) => number(&binary.left) * number(&binary.right),
            _ => panic!("an operator that the generator cannot read"),
        },
        _ => panic!("a number that the generator cannot read"),
    }
}

/// Formats a size as `.env.example` does, such as `8MiB`.
fn size(bytes: u64) -> String {
    let text = ByteSize(bytes).display().iec().to_string();
    text.replace(".0 ", "").replace(' ', "")
}

/// Reads `Duration::from_secs(…)` or `Duration::from_millis(…)`; the result is such as `5s` or
/// `14d`.
fn duration(expression: &Expr) -> String {
    let Expr::Call(call) = expression else {
        panic!("a duration that the generator cannot read");
    };
    let Expr::Path(path) = &*call.func else {
        panic!("a duration that the generator cannot read");
    };
    let value = number(&call.args[0]);
    let duration = match path
        .path
        .segments
        .last()
        .unwrap()
        .ident
        .to_string()
        .as_str()
    {
        "from_secs" => Duration::from_secs(value),
        "from_millis" => Duration::from_millis(value),
        other => panic!("Duration::{other}: the generator cannot read it"),
    };
    let text = format_duration(duration).to_string();
    text.replace(' ', "").replace("days", "d")
}

#[test]
fn the_page_lists_every_variable() {
    let sections = sections();
    let mut text = String::new();
    for section in &sections {
        let rows = section.variables.iter().map(|variable| {
            let default = match &variable.default {
                Some(value) => format!("`{value}`"),
                None => "–".to_owned(),
            };
            let name = match variable.secret {
                true => format!("`{0}` or `{0}_FILE`", variable.name),
                false => format!("`{}`", variable.name),
            };
            let kind = variable.kind.clone();
            vec![name, kind, default, variable.meaning.clone()]
        });
        text += &format!(
            "## `{}*`: {}\n\nRead by: {}.\n\n{}\n",
            section.prefix,
            section.title,
            section.programs.join(", "),
            page::table(&["variable", "type", "default", "meaning"], rows)
        );
    }
    page::compare(PAGE, &text);
}

/// Returns the programs that read the variable. A meaning with `(NAME only)` limits those of the
/// section.
fn readers<'a>(section: &'a Section, variable: &Variable) -> Vec<&'a str> {
    let programs = section.programs.iter().map(String::as_str);
    let only = |program: &&str| variable.meaning.contains(&format!("({program} only)"));
    match programs.clone().find(only) {
        Some(program) => vec![program],
        None => programs.collect(),
    }
}

#[test]
fn the_help_of_each_program_lists_its_variables() {
    let mut lines = Vec::new();
    for section in sections() {
        for variable in &section.variables {
            let secret = if variable.secret { "secret" } else { "" };
            let programs = readers(&section, variable).join(",");
            let default = variable.default.as_deref().unwrap_or_default();
            let cells = [
                &variable.name,
                &programs,
                secret,
                default,
                &variable.meaning,
            ];
            assert!(cells.iter().all(|cell| !cell.contains('\t')), "{cells:?}");
            lines.push(cells.join("\t"));
        }
    }
    lines.extend(OTHERS.map(str::to_owned));
    page::compare_file(LIST, &(lines.join("\n") + "\n"));
}

#[test]
fn every_program_knows_every_variable() {
    let declared = sections().into_iter().flat_map(|section| section.variables);
    let declared: BTreeSet<String> = declared.map(|variable| variable.name).collect();
    let known: BTreeSet<String> = shared::config::names().map(str::to_owned).collect();
    assert_eq!(known, declared);
}

#[test]
fn variables_of_compose_with_our_prefixes_are_known() {
    let example = page::read(EXAMPLE);
    let (_, compose) = example.split_once(COMPOSE_ONLY).unwrap();
    let prefixes: Vec<String> = sections()
        .into_iter()
        .map(|section| section.prefix)
        .collect();
    let names = compose.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix('#')?.split_once('=')?;
        let is_ours = prefixes
            .iter()
            .any(|prefix| name.starts_with(prefix.as_str()));
        is_ours.then_some(name)
    });
    assert_eq!(
        names.collect::<BTreeSet<_>>(),
        shared::config::COMPOSE.into()
    );
}

#[test]
fn each_section_names_the_programs_that_load_it() {
    let sections = sections();
    for program in PROGRAMS {
        let text: String = source::files(&format!("{program}/src"))
            .iter()
            .map(|file| page::read(file))
            .collect();
        for section in &sections {
            let loads = text.contains(&format!("load(\"{}\")", section.prefix));
            let listed = section.programs.iter().any(|listed| listed == program);
            assert!(
                !loads || listed,
                "{program} reads {}*: add it above the struct",
                section.prefix
            );
        }
    }
}

#[test]
fn the_example_has_every_variable_with_its_default() {
    let example = page::read(EXAMPLE);
    let (ours, _) = example.split_once(COMPOSE_ONLY).unwrap();
    let mut left: BTreeMap<&str, (bool, &str)> = ours
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            let bare = name.trim_start_matches('#');
            let is_name = bare
                .chars()
                .all(|c| c.is_ascii_uppercase() || "_".contains(c));
            is_name.then_some((bare, (bare == name, value)))
        })
        .collect();
    for variable in sections().into_iter().flat_map(|section| section.variables) {
        let name = &variable.name;
        let Some((is_set, value)) = left.remove(name.as_str()) else {
            panic!("{EXAMPLE} lacks {name}; add it with its default");
        };
        match variable.default {
            Some(default) if is_set => assert_eq!(value, default, "{EXAMPLE}: {name}"),
            Some(default) => assert_eq!(default, "0", "{EXAMPLE} comments out {name}"),
            None => assert!(!is_set, "{EXAMPLE} sets {name}, which has no default"),
        }
    }
    assert!(
        left.remove(LOG_FILTER).is_some(),
        "{EXAMPLE} lacks {LOG_FILTER}"
    );
    assert!(left.is_empty(), "{EXAMPLE} has unknown variables: {left:?}");
}
