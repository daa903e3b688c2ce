//! CSV as RFC 4180 defines it, safe to open in a spreadsheet.

/// First characters that make a spreadsheet take a cell for a formula, the full-width forms
/// included.
const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];

/// Adds a line with these cells.
///
/// A text that a spreadsheet would take for a formula gets an apostrophe in front, which
/// spreadsheets do not display.
pub(super) fn push_line<'a>(csv: &mut Vec<u8>, cells: impl IntoIterator<Item = &'a str>) {
    for (index, cell) in cells.into_iter().enumerate() {
        if index > 0 {
            csv.push(b',');
        }
        let is_quoted = cell.contains([',', '"', '\r', '\n']);
        if is_quoted {
            csv.push(b'"');
        }
        if cell.starts_with(FORMULA) {
            csv.push(b'\'');
        }
        if is_quoted {
            csv.extend_from_slice(cell.replace('"', "\"\"").as_bytes());
            csv.push(b'"');
        } else {
            csv.extend_from_slice(cell.as_bytes());
        }
    }
    csv.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(cells: &[&str]) -> String {
        let mut csv = Vec::new();
        push_line(&mut csv, cells.iter().copied());
        String::from_utf8(csv).unwrap()
    }

    #[test]
    fn cells_are_quoted_where_needed() {
        assert_eq!(line(&["a", "", "ä b"]), "a,,ä b\r\n");
        assert_eq!(
            line(&["a,b", "say \"hi\"", "two\r\nlines"]),
            "\"a,b\",\"say \"\"hi\"\"\",\"two\r\nlines\"\r\n"
        );
    }

    #[test]
    fn formulas_get_an_apostrophe() {
        for start in FORMULA {
            let text = line(&[&format!("{start}1")]);
            assert!(text.trim_start_matches('"').starts_with('\''), "{text:?}");
        }
        assert_eq!(line(&["=1,2", "1-2"]), "\"'=1,2\",1-2\r\n");
    }
}
