//! Finds the metrics that the source declares: OpenTelemetry instruments, metrics of the
//! `prometheus` crate, and the `*_up` gauges of dependencies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use quote::ToTokens;
use syn::{
    Block, Expr, ExprCall, ExprMethodCall, File, Item, Local, Pat,
    visit::{self, Visit},
};

use crate::source;

/// A metric, as declared.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) help: String,
    pub(crate) labels: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// Reads the kind from the name of a constructor, such as `u64_counter` or `IntCounterVec`.
    fn of(constructor: &str) -> Option<Self> {
        let lower = constructor.to_lowercase();
        [
            ("counter", Self::Counter),
            ("gauge", Self::Gauge),
            ("histogram", Self::Histogram),
        ]
        .into_iter()
        .find_map(|(name, kind)| {
            let rest = lower.split_once(name)?;
            matches!(rest.1, "" | "vec").then_some(kind)
        })
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// Returns the metrics of a program, sorted by name: its own, and those of `shared`.
pub(crate) fn of(program: &str) -> Vec<Metric> {
    let files = [
        source::files("shared/src"),
        source::files(&format!("{program}/src")),
    ];
    let files: Vec<File> = files
        .concat()
        .iter()
        .map(|file| source::parse(file))
        .collect();
    let up_help = files.iter().find_map(|file| {
        let found = in_file(file).into_iter();
        found
            .filter_map(|found| found.name.is_none().then_some(found.help))
            .next()
    });
    let mut metrics = BTreeMap::<String, Metric>::new();
    for file in &files {
        for found in in_file(file) {
            let Some(name) = found.name else { continue };
            let help = match found.help.as_str() {
                "" => up_help.clone().unwrap(),
                help => help.to_owned(),
            };
            let metric = Metric {
                name: name.clone(),
                kind: found.kind,
                help,
                labels: found.labels,
            };
            let first = metrics.entry(name).or_insert_with(|| metric.clone());
            assert_eq!(*first, metric, "two declarations that differ");
        }
    }
    metrics.into_values().collect()
}

/// The variants of each enum in snake case, by the name of the enum.
static ENUMS: LazyLock<BTreeMap<String, Vec<String>>> = LazyLock::new(|| {
    let folders = ["shared/src", "worker/src", "api/src"];
    let files = folders.into_iter().flat_map(source::files);
    let enums = files
        .flat_map(|file| source::parse(&file).items)
        .filter_map(|item| match item {
            Item::Enum(item) => Some((item.ident.to_string(), item.variants)),
            _ => None,
        });
    enums
        .map(|(name, variants)| {
            let variants = variants.iter().map(|variant| variant.ident.to_string());
            (name, variants.map(|variant| snake(&variant)).collect())
        })
        .collect()
});

/// Returns the variants of an enum in snake case.
pub(crate) fn variants(name: &str) -> Vec<String> {
    let variants = ENUMS.get(name);
    variants.unwrap_or_else(|| panic!("no enum {name}")).clone()
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

/// A declaration.
struct Found {
    /// `None` where the name is an argument: the gauge of a dependency.
    name: Option<String>,
    kind: Kind,
    /// Empty for the gauge of a dependency.
    help: String,
    labels: BTreeSet<String>,
}

fn in_file(file: &File) -> Vec<Found> {
    let mut declared = Declarations::default();
    declared.visit_file(file);
    let mut uses = Uses {
        helpers: helpers(file),
        ..Uses::default()
    };
    uses.visit_file(file);
    let mut found = declared.found;
    for (found, variable) in &mut found {
        let used = variable.as_ref().and_then(|name| uses.labels.get(name));
        found.labels.extend(used.into_iter().flatten().cloned());
    }
    found.into_iter().map(|(found, _)| found).collect()
}

/// Collects declarations, each with the variable or field that holds it.
#[derive(Default)]
struct Declarations {
    variable: Option<String>,
    found: Vec<(Found, Option<String>)>,
}

impl Declarations {
    fn add(&mut self, name: Option<String>, kind: Kind, help: String, labels: BTreeSet<String>) {
        let found = Found {
            name,
            kind,
            help,
            labels,
        };
        self.found.push((found, self.variable.clone()));
    }
}

impl<'ast> Visit<'ast> for Declarations {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if module.ident != "tests" {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_local(&mut self, local: &'ast Local) {
        let before = self.variable.take();
        self.variable = variable(&local.pat);
        visit::visit_local(self, local);
        self.variable = before;
    }

    fn visit_field_value(&mut self, field: &'ast syn::FieldValue) {
        let before = self.variable.take();
        self.variable = Some(field.member.to_token_stream().to_string());
        visit::visit_field_value(self, field);
        self.variable = before;
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let Some((name, kind, help)) = instrument(call) else {
            return visit::visit_expr_method_call(self, call);
        };
        // Labels inside the expression: those of a callback or of a first value.
        let labels = key_values(&call.to_token_stream().to_string());
        self.add(name, kind, help, labels);
    }

    fn visit_expr_call(&mut self, call: &'ast ExprCall) {
        let Some((owner, "new")) = path(&call.func) else {
            return visit::visit_expr_call(self, call);
        };
        let mut texts = Texts::default();
        call.args
            .iter()
            .for_each(|argument| texts.visit_expr(argument));
        let mut texts = texts.0.into_iter();
        match (owner.as_str(), Kind::of(&owner)) {
            ("Dependency", _) => {
                let name = texts.nth(1);
                self.add(name, Kind::Gauge, String::new(), BTreeSet::new());
            }
            (_, Some(kind)) => {
                if let (Some(name), Some(help)) = (texts.next(), texts.next()) {
                    self.add(Some(name), kind, help, texts.collect());
                }
            }
            _ => visit::visit_expr_call(self, call),
        }
    }
}

/// Reads `….u64_counter(NAME).with_description(HELP)…`.
fn instrument(call: &ExprMethodCall) -> Option<(Option<String>, Kind, String)> {
    let (mut help, mut call) = (None, call);
    loop {
        let method = call.method.to_string();
        if method == "with_description" {
            help = source::text(&call.args[0]);
        }
        if method.contains("64_")
            && let Some(kind) = Kind::of(&method)
        {
            let name = source::text(&call.args[0]);
            return Some((name, kind, help.expect("an instrument with a description")));
        }
        call = match &*call.receiver {
            Expr::MethodCall(receiver) => receiver,
            _ => return None,
        };
    }
}

/// Returns the last two segments of a path: a type and its function.
fn path(function: &Expr) -> Option<(String, &'static str)> {
    let Expr::Path(path) = function else {
        return None;
    };
    let mut segments = path.path.segments.iter().rev();
    let last = segments.next()?;
    let owner = segments.next()?;
    (last.ident == "new").then(|| (owner.ident.to_string(), "new"))
}

fn variable(pattern: &Pat) -> Option<String> {
    match pattern {
        Pat::Ident(pattern) => Some(pattern.ident.to_string()),
        Pat::Type(pattern) => variable(&pattern.pat),
        _ => None,
    }
}

/// The string literals of an expression, in order.
#[derive(Default)]
struct Texts(Vec<String>);

impl<'ast> Visit<'ast> for Texts {
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.0.push(text.value());
    }
}

/// Returns the labels in `KeyValue :: new ("label" , …)`, from tokens.
fn key_values(tokens: &str) -> BTreeSet<String> {
    let compact = tokens.replace(' ', "");
    let labels = compact.split("KeyValue::new(\"").skip(1);
    labels
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .collect()
}

/// Returns the labels in the body of each function of a file, by its name.
fn helpers(file: &File) -> BTreeMap<String, BTreeSet<String>> {
    let functions = file.items.iter().filter_map(|item| match item {
        Item::Fn(item) => Some((item.sig.ident.to_string(), &item.block)),
        _ => None,
    });
    functions
        .map(|(name, block)| (name, key_values(&block.to_token_stream().to_string())))
        .collect()
}

/// Collects the labels of each use of an instrument, by the variable or field that holds it.
#[derive(Default)]
struct Uses {
    helpers: BTreeMap<String, BTreeSet<String>>,
    /// Labels in variables of the current block.
    locals: BTreeMap<String, BTreeSet<String>>,
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_block(&mut self, block: &'ast Block) {
        let before = self.locals.clone();
        visit::visit_block(self, block);
        self.locals = before;
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if let (Some(name), Some(value)) = (variable(&local.pat), &local.init) {
            let labels = key_values(&value.expr.to_token_stream().to_string());
            self.locals.insert(name, labels);
        }
        visit::visit_local(self, local);
    }

    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        let method = call.method.to_string();
        if matches!(method.as_str(), "add" | "record" | "observe" | "bind") {
            let receiver = call.receiver.to_token_stream().to_string();
            let holder = receiver.rsplit([' ', '.']).next().unwrap_or_default();
            let arguments = call.args.to_token_stream().to_string();
            let mut labels = key_values(&arguments);
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            for word in arguments.split(|c| !is_name(c)) {
                let known = self.helpers.get(word).or_else(|| self.locals.get(word));
                labels.extend(known.into_iter().flatten().cloned());
            }
            self.labels
                .entry(holder.to_owned())
                .or_default()
                .extend(labels);
        }
        visit::visit_expr_method_call(self, call);
    }
}
