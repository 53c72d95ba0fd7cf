//! Code of the application that runs while a value is read: it may panic, and the cache goes on.

use gonfalon::Cached;
use gonfalon::testkit::FakeServer;
use serde::{Deserialize, Deserializer};

use super::within;

const WORDS: &str = "two is too much";

/// A number whose reading panics if it is 2.
#[derive(Debug)]
struct Touchy(u32);

impl<'de> Deserialize<'de> for Touchy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        refuse_two(number);
        Ok(Self(number))
    }
}

#[derive(Debug, Deserialize)]
struct Settings {
    limit: Touchy,
}

#[derive(Debug, Deserialize)]
struct Plain {
    limit: u32,
}

fn refuse_two(number: u32) {
    assert_ne!(number, 2, "{WORDS}");
}

/// 2 is wrong, what was before stays, and what comes after is read.
async fn outlives<T: Send + Sync + 'static>(
    server: &FakeServer,
    what: &str,
    value: Cached<T>,
    number: fn(&T) -> u32,
) {
    server.put("s/limit", "1");
    let good = server.revision();
    let state = within(value.at_least(good)).await.expect("it arrives");
    assert_eq!(number(&state.value), 1, "{what}");
    let bad = server.put("s/limit", "2");
    let state = within(value.at_least(bad)).await.expect("it arrives");
    assert_eq!(number(&state.value), 1, "{what}: the last good one stays");
    let error = state.error.as_ref().expect("it is said");
    assert_eq!(error.revision, bad, "{what}");
    assert!(error.why.contains(WORDS), "{what}: {error}");
    let good = server.put("s/limit", "3");
    let state = within(value.at_least(good)).await.expect("it arrives");
    assert_eq!(number(&state.value), 3, "{what}");
    assert!(state.error.is_none(), "{what}");
    assert_eq!(value.cache().status().listings, 1, "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_value_whose_reading_panics_is_wrong_and_the_next_is_read() {
    let server = FakeServer::start();
    let client = server.client();
    server.put("s/limit", "1");
    let server = &server;
    let checked = client.cached::<u32>("s/limit").check(|number| {
        refuse_two(*number);
        Ok(())
    });
    outlives(server, "a check", checked.await.unwrap(), |number| *number).await;
    let read = client.cached_by("s/limit", |bytes| {
        let number = std::str::from_utf8(bytes).unwrap().parse().unwrap();
        refuse_two(number);
        Ok(number)
    });
    outlives(server, "a format", read.await.unwrap(), |number| *number).await;
    let json = client.cached::<Touchy>("s/limit").await.unwrap();
    outlives(server, "a type", json, |number| number.0).await;
    let fields = client.cached_struct::<Settings>("s/").await.unwrap();
    outlives(server, "a field of a struct", fields, |read| read.limit.0).await;
    let checked = client.cached_struct::<Plain>("s/").check(|read| {
        refuse_two(read.limit);
        Ok(())
    });
    let checked = checked.await.unwrap();
    outlives(server, "a check of a struct", checked, |read| read.limit).await;
}

/// The first value: there is nothing yet that could stay.
#[tokio::test(start_paused = true)]
async fn a_first_value_whose_reading_panics_is_an_error_or_the_fallback() {
    let server = FakeServer::start();
    let client = server.client();
    server.put("s/limit", "2");
    let builder = client.cached::<Touchy>("s/limit");
    let error = within(builder.clone()).await.unwrap_err();
    assert_eq!(*error.kind(), gonfalon::ErrorKind::InvalidArgument);
    assert!(error.to_string().contains(WORDS), "{error}");
    let value = within(builder.or(Touchy(7))).await.unwrap();
    assert_eq!(value.load().0, 7);
    outlives(&server, "a fallback", value, |number| number.0).await;
}
