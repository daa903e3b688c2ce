//! The SQL that gives each role the least rights.

use super::objects::{OBJECTS, Object, Right};
use crate::grants::{Names, Subject};

/// Rights on the tables and sequences of a migration that was applied after the grants. They let
/// programs start before the grants are renewed, which then leaves what is needed.
fn defaults(subjects: &[Subject]) -> (&'static str, bool) {
    let writes = subjects.iter().any(|subject| *subject != Subject::Api);
    match writes {
        true => ("SELECT, INSERT, UPDATE, DELETE", true),
        false => ("SELECT", false),
    }
}

/// Returns the statements that create the missing roles, and give them the least rights on the
/// objects of `schema`. They can be repeated, and also take away rights that are no longer needed.
///
/// A superuser runs them in the database, or a role with `CREATEROLE` that owns the database and
/// the tables.
pub fn grants(names: &Names, schema: &str) -> String {
    let programs: Vec<(&str, Vec<Subject>)> = names
        .subjects()
        .into_iter()
        // The owner has every right.
        .filter(|(name, _)| *name != names.migrate)
        .collect();
    let mut sql = Sql {
        text: String::new(),
        schema: identifier(schema),
        owner: identifier(&names.migrate),
    };
    sql.begin();
    sql.roles(names, &programs);
    sql.schema(&programs);
    sql.defaults(&programs);
    for object in &OBJECTS {
        sql.object(object, &programs);
    }
    sql.line("COMMIT;");
    sql.text
}

struct Sql {
    text: String,
    schema: String,
    owner: String,
}

type Programs<'a> = [(&'a str, Vec<Subject>)];

impl Sql {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn begin(&mut self) {
        self.line(
            "-- The least rights of each role. Repeat it after each migration: until then, default",
        );
        self.line("-- privileges apply to new tables. A new role has no password: set it with");
        self.line("-- \\password in psql.");
        self.line("BEGIN;");
        self.line("SET LOCAL lock_timeout = '10s';");
        self.line("SET LOCAL client_min_messages = warning;");
    }

    fn roles(&mut self, names: &Names, programs: &Programs<'_>) {
        let mut roles = vec![literal(&names.migrate)];
        roles.extend(programs.iter().map(|(name, _)| literal(name)));
        let (roles, owner) = (roles.join(", "), literal(&names.migrate));
        self.line(&format!(
            "DO $grants$ DECLARE role text; BEGIN\n    \
                 FOREACH role IN ARRAY ARRAY[{roles}] LOOP\n        \
                     IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role) THEN\n            \
                         EXECUTE format('CREATE ROLE %I LOGIN', role);\n        \
                     END IF;\n        \
                     EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), \
             role);\n    \
                 END LOOP;\n    \
                 -- Only a member of the owner may change its tables.\n    \
                 IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN\n        \
                     EXECUTE format('GRANT %I TO %I', {owner}, current_user);\n    \
                 END IF;\n\
             END $grants$;"
        ));
    }

    fn schema(&mut self, programs: &Programs<'_>) {
        let (schema, owner) = (self.schema.clone(), self.owner.clone());
        self.line(&format!("REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC;"));
        self.line(&format!(
            "GRANT USAGE, CREATE ON SCHEMA {schema} TO {owner};"
        ));
        for (name, subjects) in programs {
            let name = identifier(name);
            self.line(&format!("GRANT USAGE ON SCHEMA {schema} TO {name};"));
            if subjects.contains(&Subject::Worker) {
                self.line("-- `worker migrate --down` names the workers that still run.");
                self.line(&format!("GRANT {name} TO {owner};"));
            }
        }
    }

    fn defaults(&mut self, programs: &Programs<'_>) {
        self.line("-- Tables and sequences of later migrations.");
        let prefix = format!(
            "ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {} GRANT",
            self.owner, self.schema
        );
        for (name, subjects) in programs {
            let (rights, has_sequences) = defaults(subjects);
            let name = identifier(name);
            self.line(&format!("{prefix} {rights} ON TABLES TO {name};"));
            if has_sequences {
                self.line(&format!("{prefix} USAGE ON SEQUENCES TO {name};"));
            }
        }
    }

    /// Statements on a missing object would fail.
    fn object(&mut self, object: &Object, programs: &Programs<'_>) {
        let path = format!("{}.{}", self.schema, object.name);
        let kind = match object.is_sequence() {
            true => "SEQUENCE ",
            false => "",
        };
        self.line(&format!(
            "DO $grants$ BEGIN IF to_regclass({}) IS NOT NULL THEN",
            literal(&path)
        ));
        // The owner of a sequence is that of its table.
        if !object.is_sequence() {
            let owner = self.owner.clone();
            self.line(&format!(
                "    IF (SELECT relowner <> {}::regrole FROM pg_class WHERE oid = \
                 {}::regclass) THEN",
                literal(&owner),
                literal(&path)
            ));
            // Locks the table, so only if needed.
            self.line(&format!("        ALTER TABLE {path} OWNER TO {owner};"));
            self.line("    END IF;");
        }
        for (name, subjects) in programs {
            let name = identifier(name);
            self.line(&format!("    REVOKE ALL ON {kind}{path} FROM {name};"));
            let rights = object.rights(subjects);
            if !rights.is_empty() {
                let rights: Vec<&str> = rights.into_iter().map(Right::as_str).collect();
                let rights = rights.join(", ");
                self.line(&format!("    GRANT {rights} ON {kind}{path} TO {name};"));
            }
        }
        self.line("END IF; END $grants$;");
    }
}

/// Quotes a name unless it needs no quotes.
fn identifier(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    // A longer plain name could be a reserved word only if it has no underscore.
    match is_plain && (name.contains('_') || name == "public") {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
