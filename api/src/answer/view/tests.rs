use shared::order::Version;

use super::*;

const DOCUMENT: &str = concat!(
    r#"{"order_uid":"u","delivery":{"name":"Jane","phone":"+15550000001","zip":"1","#,
    r#""city":"Berlin","address":"Street 1","region":"Berlin","email":"jane@example.com"},"#,
    r#""customer_id":"own"}"#
);
const MASKED: &str = concat!(
    r#"{"order_uid":"u","delivery":{"name":"MASKED","phone":"+9990000000","zip":"MASKED","#,
    r#""city":"Berlin","address":"MASKED","region":"Berlin","email":"masked@masked.invalid"},"#,
    r#""customer_id":"own"}"#
);

fn version() -> DocumentVersion {
    DocumentVersion::current(Version::new(1, 2, 3))
}

fn answer(json: &str) -> Answer {
    Answer::new(version(), Some(json.as_bytes()))
}

fn view(scopes: &[Scope], customer: Option<&str>) -> View {
    View::of(Some(&Caller {
        name: "caller".into(),
        scopes: scopes.iter().copied().collect(),
        customer: customer.map(Into::into),
    }))
}

/// The ETag and the document that `view` shows, in each form that has them.
fn shown(view: &View, json: &str) -> Option<(String, String)> {
    let show = || match view.show(answer(json)).unwrap() {
        Visible::Order(shown) => Some(shown),
        Visible::Unknown => None,
        Visible::Erased(_) => panic!("erased"),
    };
    let (etag, document) = show()?.into_etag_and_json();
    assert_eq!(show()?.etag(), etag);
    assert_eq!(etag, format!("\"{}\"", show()?.edition()));
    let text = show()?.into_text();
    assert_eq!(text.slices().concat(), document);
    assert_eq!(text.size(), document.len());
    assert_eq!(text.into_parts().collect::<Vec<_>>().concat(), document);
    let etag = etag.to_str().unwrap().to_owned();
    Some((etag, String::from_utf8(document.to_vec()).unwrap()))
}

#[test]
fn a_view_shows_what_its_caller_may_see() {
    use Scope::{OrdersList, OrdersPii, OrdersRead};

    let whole = Some((format!("\"{}\"", version()), DOCUMENT.to_owned()));
    let masked = Some((format!("\"{}-masked\"", version()), MASKED.to_owned()));
    for (view, expected) in [
        (View::of(None), &whole),
        (view(&[OrdersRead, OrdersPii], None), &whole),
        (view(&[OrdersRead, OrdersPii], Some("own")), &whole),
        (view(&[OrdersRead, OrdersList], None), &masked),
        (view(&[], Some("own")), &masked),
        (view(&[OrdersRead, OrdersPii], Some("other")), &None),
        (view(&[OrdersRead], Some("other")), &None),
        (view(&[OrdersRead], Some("")), &None),
        (view(&[OrdersRead], Some("OWN")), &None),
    ] {
        assert_eq!(shown(&view, DOCUMENT), *expected, "{view:?}");
    }
}

#[test]
fn only_a_bound_caller_does_not_know_of_erased_orders() {
    let erased = Answer::new(version(), None);
    for (view, is_known) in [
        (View::EVERYTHING, true),
        (View::MASKED, true),
        (view(&[Scope::OrdersPii], Some("own")), false),
    ] {
        let visible = view.show(erased.clone()).unwrap();
        assert_eq!(matches!(visible, Visible::Erased(_)), is_known, "{view:?}");
        let unknown = view.show(Answer::Unknown).unwrap();
        assert!(matches!(unknown, Visible::Unknown));
    }
}

#[test]
fn an_unreadable_document_is_shown_only_where_nothing_is_hidden() {
    let unreadable = "x";
    assert!(shown(&View::EVERYTHING, unreadable).is_some());
    for view in [View::MASKED, view(&[Scope::OrdersPii], Some("own"))] {
        assert_eq!(view.show(answer(unreadable)).unwrap_err(), Unreadable);
    }
}

#[test]
fn a_selection_has_only_visible_orders() {
    let bound = view(&[Scope::OrdersPii], Some("own"));
    for (view, wanted, selected) in [
        (&View::EVERYTHING, None, Some(None)),
        (&View::EVERYTHING, Some("other"), Some(Some("other"))),
        (&View::MASKED, Some("other"), Some(Some("other"))),
        (&bound, None, Some(Some("own"))),
        (&bound, Some("own"), Some(Some("own"))),
        (&bound, Some("other"), None),
    ] {
        let filter = ListFilter {
            customer_id: wanted.map(str::to_owned),
            ..ListFilter::default()
        };
        let selection = view.select(filter).unwrap();
        let customer = selection
            .filter()
            .map(|filter| filter.customer_id.as_deref());
        assert_eq!(customer, selected, "{view:?}, {wanted:?}");
    }
    let json = Bytes::from_static(DOCUMENT.as_bytes());
    let other = view(&[], Some("other"));
    let selection = other.select(ListFilter::default()).unwrap();
    assert!(selection.show(json).unwrap().is_none());
}

/// A match would confirm a guessed phone number.
#[test]
fn a_filter_by_personal_data_needs_the_scope() {
    let phone = || ListFilter {
        phone: Some("+15550000001".to_owned()),
        ..ListFilter::default()
    };
    let email = || ListFilter {
        email: Some("jane@example.com".to_owned()),
        ..ListFilter::default()
    };
    for filter in [phone, email as fn() -> ListFilter] {
        for masked in [View::MASKED, view(&[Scope::OrdersList], Some("own"))] {
            assert_eq!(masked.select(filter()).err(), Some(PersonalFilter));
        }
        for whole in [View::EVERYTHING, view(&[Scope::OrdersPii], Some("own"))] {
            assert!(whole.select(filter()).is_ok());
        }
    }
}
