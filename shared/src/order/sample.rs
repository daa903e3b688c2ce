//! Valid and invalid orders for the producer and for tests.
