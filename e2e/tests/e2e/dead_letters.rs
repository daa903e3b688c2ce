//! A dead letter topic that does not take what is to go there.

use e2e::{Draft, Ledger, Stack};
use rand::{Rng, SeedableRng, rngs::StdRng};
use sha2::{Digest, Sha256};
use shared::order::Reason;

#[test]
fn what_is_too_large_even_for_the_dead_letter_topic_leaves_its_fingerprint() {
    let stack = Stack::builder("fingerprint")
        .dead_letter_max_bytes(1 << 20)
        .workers(1)
        .start();
    let mut ledger = Ledger::default();
    // Nothing that compression could make small enough.
    let mut value = vec![0; 3 << 20];
    StdRng::seed_from_u64(96).fill(value.as_mut_slice());
    let draft = Draft::refused(Reason::TooLarge, value.clone())
        .with_key(Some(b"large"))
        .with_header("original", Some(b"1"));
    stack.send(&mut ledger, &[draft]);
    stack.settle();
    let letters = stack.broker().read(&stack.addresses().dead_letter_topic);
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.key.as_deref(), Some(&b"large"[..]));
    assert_eq!(letter.value.as_deref().unwrap_or_default(), b"");
    assert_eq!(
        letter.headers[0],
        ("original".to_owned(), Some(b"1".to_vec()))
    );
    let header = |name: &str| {
        let (_, value) = letter
            .headers
            .iter()
            .find(|(held, _)| held == name)
            .unwrap();
        String::from_utf8(value.clone().unwrap()).unwrap()
    };
    assert_eq!(header("dlq-reason"), "too_large");
    let detail = header("dlq-detail");
    let digest = format!("{:x}", Sha256::digest(&value));
    assert!(
        detail.contains(&digest) && detail.contains("3145728"),
        "{detail}"
    );
}
