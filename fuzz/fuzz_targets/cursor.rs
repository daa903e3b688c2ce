#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| api::http::fuzz::cursor(data));
