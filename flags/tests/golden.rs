//! The golden vectors of bucketing algorithm 1, made by `golden/algo1.py`.

use gonfalon_flags::{Percent, Seed};
use serde_json::Value;

const VECTORS: &str = include_str!("golden/algo1.jsonl");

#[test]
fn every_id_is_in_the_bucket_where_the_reference_has_it() {
    let mut count = 0;
    for line in VECTORS.lines() {
        let vector: Value = serde_json::from_str(line).expect("a line is JSON");
        let text = |at: usize| vector[at].as_str().expect("salt and id are strings");
        let number = |at: usize| {
            let number = vector[at]
                .as_u64()
                .and_then(|number| number.try_into().ok());
            number.expect("seed and buckets are numbers of 32 bits")
        };
        let (salt, id) = (text(0), text(1).as_bytes());
        let (seed, bucket, split): (u32, u32, u32) = (number(2), number(3), number(4));
        assert_eq!(Seed::new(salt).number(), seed, "seed: {line}");
        let ours = Seed::new(salt).bucket(id);
        assert_eq!(ours.thousandths(), bucket, "bucket: {line}");
        let ours_split = Seed::for_split(salt).bucket(id);
        assert_eq!(ours_split.thousandths(), split, "bucket of a split: {line}");

        // A percentage that ends just before the bucket is without it, the next one has it.
        let below = Percent::from_thousandths(bucket).expect("a bucket is a percentage");
        let above =
            Percent::from_thousandths(bucket + 1).expect("no bucket is the last percentage");
        assert!(!below.contains(ours) && above.contains(ours), "{line}");
        count += 1;
    }
    assert_eq!(count, 2_037, "the file is not the one that algo1.py makes");
}
