//! Who gets rights in Postgres, Redis and Kafka. What each of them needs is declared where the
//! statements are: [`storage::schema::grants`](crate::storage::schema::grants),
//! [`cache::acl`](crate::cache::acl), and in the worker for Kafka.

/// Programs that need the same rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// `worker run`: consumes orders.
    Worker,
    /// `api serve`: reads orders, and fills Redis.
    Api,
    /// Commands of an operator: `worker dead-letters`, `verify`, `rewind` and `cache`.
    Operator,
}

/// The names of the roles in Postgres, the users in Redis and the principals in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Owns the tables: `worker migrate`.
    pub migrate: String,
    /// The name of [`Subject::Worker`].
    pub worker: String,
    /// The name of [`Subject::Api`].
    pub api: String,
    /// The name of [`Subject::Operator`]. It may be the worker's name.
    pub operator: String,
}

impl Names {
    /// Returns each name once, with the subjects that it stands for.
    pub fn subjects(&self) -> Vec<(&str, Vec<Subject>)> {
        let mut names: Vec<(&str, Vec<Subject>)> = Vec::new();
        for (name, subject) in [
            (&self.worker, Subject::Worker),
            (&self.api, Subject::Api),
            (&self.operator, Subject::Operator),
        ] {
            match names.iter_mut().find(|(known, _)| known == name) {
                Some((_, subjects)) => subjects.push(subject),
                None => names.push((name, vec![subject])),
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_stand_for_several_subjects() {
        let names = Names {
            migrate: "m".to_owned(),
            worker: "w".to_owned(),
            api: "a".to_owned(),
            operator: "w".to_owned(),
        };
        let expected = [
            ("w", vec![Subject::Worker, Subject::Operator]),
            ("a", vec![Subject::Api]),
        ];
        assert_eq!(names.subjects(), expected);
    }
}
