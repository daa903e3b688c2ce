//! Reads order uids from a file: one per line.

use std::io::{BufRead, Read};

use anyhow::{anyhow, ensure};
use shared::order::OrderUid;

use crate::order_file::without_byte_order_mark;

/// Limit of a line, in bytes. A longer one cannot be a uid.
const MAX_LINE: u64 = 1 << 10;
/// Limit of the number of uids, which limits the memory use.
pub(crate) const MAX_UIDS: usize = 1_000_000;

/// Passes each uid to `sink`. Blanks around a uid and empty lines are ignored.
///
/// # Errors
/// If the file cannot be read, or a line is not a uid. The error names the line and does not quote
/// it, because a wrong file may hold anything.
pub(crate) fn read_uids(
    mut reader: impl BufRead,
    mut sink: impl FnMut(OrderUid) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut bytes = Vec::new();
    for line in 1_u64.. {
        bytes.clear();
        if reader
            .by_ref()
            .take(MAX_LINE)
            .read_until(b'\n', &mut bytes)?
            == 0
        {
            break;
        }
        let text = match line {
            1 => without_byte_order_mark(&bytes)?,
            _ => &bytes,
        };
        let text = text.trim_ascii();
        if text.is_empty() && (bytes.len() as u64) < MAX_LINE {
            continue;
        }
        let uid = OrderUid::from_bytes(text)
            .map_err(|error| anyhow!("line {line}: {error}; write one uid per line"))?;
        sink(uid)?;
    }
    Ok(())
}

/// Uids without repetitions, in the order in which they were given.
#[derive(Default)]
pub(crate) struct Uids {
    list: Vec<OrderUid>,
    known: std::collections::HashSet<OrderUid>,
}

impl Uids {
    /// Adds a uid unless it is known.
    ///
    /// # Errors
    /// If there are [`MAX_UIDS`] already.
    pub(crate) fn add(&mut self, uid: OrderUid) -> anyhow::Result<()> {
        if self.known.insert(uid) {
            ensure!(
                self.list.len() < MAX_UIDS,
                "more than {MAX_UIDS} uids; split the file: split -l {MAX_UIDS}"
            );
            self.list.push(uid);
        }
        Ok(())
    }

    /// Returns the uids.
    pub(crate) fn into_list(self) -> Vec<OrderUid> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> anyhow::Result<Vec<String>> {
        let mut uids = Vec::new();
        read_uids(text, |uid| {
            uids.push(uid.to_string());
            Ok(())
        })?;
        Ok(uids)
    }

    #[test]
    fn a_file_has_one_uid_per_line() {
        for text in [
            "a\nb-1\n_",
            "a\r\nb-1\r\n_\r\n",
            "\u{feff}a\n\n \t\n  b-1 \n_\n\n",
        ] {
            assert_eq!(
                read(text.as_bytes()).unwrap(),
                ["a", "b-1", "_"],
                "{text:?}"
            );
        }
        assert_eq!(read(b"").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_error_names_the_line_and_does_not_quote_it() {
        let long = [b"a\n", &[b' '; 2000][..]].concat();
        for (text, line) in [
            (&b"a\n\nme@example.com\n"[..], 3),
            (b"a b\n", 1),
            (b"a\n\xff\n", 2),
            (b"a\n\xef\xbb\xbfb\n", 2),
            (&[b'x'; 65], 1),
            (&[b'x'; 5000], 1),
            (&long, 2),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "line {line}: not an order uid: 1 to 64 of A-Z a-z 0-9 _ - are expected; write \
                     one uid per line"
                )
            );
        }
        let wide: Vec<u8> = "a\nb\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(read(&wide).unwrap_err().to_string().contains("iconv"));
    }

    #[test]
    fn repeated_uids_count_once() {
        let mut uids = Uids::default();
        for uid in ["b", "a", "b"] {
            uids.add(OrderUid::parse(uid).unwrap()).unwrap();
        }
        let list: Vec<_> = uids.into_list().iter().map(OrderUid::to_string).collect();
        assert_eq!(list, ["b", "a"]);
    }
}
