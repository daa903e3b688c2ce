//! The environment variables of all programs, as `--help` lists them.

/// Generated from the doc comments and defaults of the structs that read the variables. A test of
/// `e2e` compares it with them, and renews it.
const LIST: &str = include_str!("variables.tsv");

/// An environment variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// Name, such as `KAFKA_BROKERS`.
    pub name: &'static str,
    /// Value of an unset variable, as one would write it into the environment.
    pub default: Option<&'static str>,
    /// Whether the value may also come from the file that `NAME_FILE` names.
    pub is_secret: bool,
    /// Names of the programs, separated by commas.
    programs: &'static str,
    meaning: &'static str,
}

impl Variable {
    /// Reads a line of the list: name, programs, `secret` or nothing, default or nothing, meaning.
    fn parse(line: &'static str) -> Option<Self> {
        let mut cells = line.split('\t');
        Some(Self {
            name: cells.next()?,
            programs: cells.next()?,
            is_secret: cells.next()? == "secret",
            default: cells.next().filter(|default| !default.is_empty()),
            meaning: cells.next()?,
        })
    }

    /// Whether the program reads the variable.
    pub fn is_read_by(&self, program: &str) -> bool {
        self.programs.split(',').any(|name| name == program)
    }

    /// Returns the first sentence of the meaning, and the one about the default.
    pub fn summary(&self) -> String {
        let sentences = self.meaning.split_inclusive(". ");
        let chosen = sentences
            .enumerate()
            .filter(|(index, sentence)| *index == 0 || sentence.starts_with("The default "));
        let text: String = chosen.map(|(_, sentence)| sentence).collect();
        // Only this program shows the variable.
        let only = format!(" ({} only)", self.programs);
        text.trim_end().replace(&only, "")
    }
}

/// Returns the variables of all programs, in the order of `docs/configuration.md`.
pub fn variables() -> impl Iterator<Item = Variable> {
    LIST.lines().filter_map(Variable::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_a_variable() {
        assert_eq!(variables().count(), LIST.lines().count());
        let find = |name| variables().find(|variable| variable.name == name).unwrap();
        let url = find("DATABASE_URL");
        assert!(url.is_secret && url.is_read_by("worker") && !url.is_read_by("producer"));
        let topic = find("KAFKA_TOPIC");
        assert_eq!(topic.default, Some("orders"));
        assert!(!topic.is_secret && topic.is_read_by("producer"));
        assert_eq!(find("KAFKA_SASL_USERNAME").default, None);
    }

    #[test]
    fn a_summary_is_the_first_sentence_and_the_default() {
        let find = |name| variables().find(|variable| variable.name == name).unwrap();
        assert_eq!(
            find("DATABASE_TIMEOUT").summary(),
            "Deadline of one call, including the wait for a connection. The default is `5s` in the \
             worker and `500ms` in the api."
        );
        assert_eq!(
            find("REDIS_ORDER_TTL").summary(),
            "Time to live of an entry."
        );
    }
}
