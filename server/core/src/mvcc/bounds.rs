//! Key ranges as the bounds that ordered maps take.

use std::ops::Bound;

use crate::{KeyRange, RangeEnd};

/// Where a part of an ordered map starts and ends.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of a range for an ordered map; none if no key can be in it.
pub(super) fn bounds(range: &KeyRange) -> Option<Bounds<'_>> {
    let start = range.start.as_ref();
    match &range.end {
        _ if range.is_empty() => None,
        RangeEnd::Single => Some((Bound::Included(start), Bound::Included(start))),
        RangeEnd::Before(end) => Some((Bound::Included(start), Bound::Excluded(end))),
        RangeEnd::Unbounded => Some((Bound::Included(start), Bound::Unbounded)),
    }
}
