//! The `Accept` header (RFC 9110, section 12.5.1).

use poem::http::{HeaderMap, header};

/// Returns the index of the media type in `offered` that the client prefers; the first one if it
/// has no preference, and `None` if it accepts none of them.
pub(super) fn preferred(headers: &HeaderMap, offered: &[&str]) -> Option<usize> {
    let values = headers.get_all(header::ACCEPT).iter();
    let ranges: Vec<Range<'_>> = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(Range::parse)
        .collect();
    if ranges.is_empty() {
        let accepts_any = headers
            .get_all(header::ACCEPT)
            .iter()
            .all(|value| value.as_bytes().trim_ascii().is_empty());
        return (accepts_any && !offered.is_empty()).then_some(0);
    }
    let mut best = (None, 0.0);
    for (index, media_type) in offered.iter().enumerate() {
        let quality = quality(&ranges, media_type);
        if quality > best.1 {
            best = (Some(index), quality);
        }
    }
    best.0
}

/// The quality of a media type: that of the most specific range that includes it.
fn quality(ranges: &[Range<'_>], media_type: &str) -> f32 {
    let matching = ranges
        .iter()
        .filter_map(|range| Some((range.specificity(media_type)?, range.quality)));
    let most_specific = matching.max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    most_specific.map_or(0.0, |(_, quality)| quality)
}

/// An entry of the header. Parameters other than the quality are ignored.
struct Range<'a> {
    media_type: &'a str,
    quality: f32,
}

impl<'a> Range<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let media_type = parts.next().filter(|text| text.contains('/'))?;
        let quality = parts.find_map(|part| {
            let (name, value) = part.split_once('=')?;
            name.trim_end()
                .eq_ignore_ascii_case("q")
                .then(|| value.trim_start())
        });
        let quality = quality.map_or(Some(1.0), |text| text.parse().ok());
        Some(Self {
            media_type,
            quality: quality.filter(|quality| (0.0..=1.0).contains(quality))?,
        })
    }

    /// How exactly the range names a media type; `None` if it does not include it.
    fn specificity(&self, media_type: &str) -> Option<u8> {
        if self.media_type.eq_ignore_ascii_case(media_type) {
            return Some(2);
        }
        let (kind, any) = self.media_type.split_once('/')?;
        let is_of_kind = media_type
            .split_once('/')
            .is_some_and(|(known, _)| kind.eq_ignore_ascii_case(known));
        match (kind, any) {
            ("*", "*") => Some(0),
            (_, "*") if is_of_kind => Some(1),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use poem::http::HeaderValue;

    use super::*;

    #[test]
    fn the_client_chooses_the_media_type() {
        let (ndjson, csv) = (Some("application/x-ndjson"), Some("text/csv"));
        for (accept, expected) in [
            (&[][..], ndjson),
            (&[""], ndjson),
            (&["*/*"], ndjson),
            (&["application/x-ndjson"], ndjson),
            (&["application/*"], ndjson),
            (&["text/csv"], csv),
            (&["TEXT/CSV; charset=utf-8"], csv),
            (&["text/*"], csv),
            (&["text/csv, application/x-ndjson"], ndjson),
            (&["text/csv, application/x-ndjson;q=0.9"], csv),
            (&["text/csv;q=0.5, */*;q=0.1"], csv),
            (&["text/csv;Q=0.5", "*/*"], ndjson),
            (&["text/html, */*;q=0.8"], ndjson),
            (&["application/x-ndjson;q=0, */*"], csv),
            (&["application/json"], None),
            (&["*/*;q=0"], None),
            (&["text/csv;q=0"], None),
            (&["text/csv;q=2"], None),
            (&["csv"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, HeaderValue::from_static(value));
            }
            let offered = ["application/x-ndjson", "text/csv"];
            let found = preferred(&headers, &offered).map(|index| offered[index]);
            assert_eq!(found, expected, "{accept:?}");
        }
    }
}
