//! Shapes of DMS that several operations share, with filters and paging.

use crate::api::errors::Fault;
use serde::Deserialize;
use serde_json::Value;

/// `Filter`: the resource passes when the named attribute has one of the values.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Filter {
    pub(super) name: String,
    pub(super) values: Vec<String>,
}

/// The members that every Describe call has.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct DescribeRequest {
    pub(super) filters: Vec<Filter>,
    pub(super) max_records: Option<i64>,
    pub(super) marker: Option<String>,
}

impl DescribeRequest {
    /// Keeps what passes every filter. `attribute` gives a resource's value for a
    /// filter's name, or nothing when the operation knows no such filter.
    pub(super) fn filter<T>(
        &self,
        resources: Vec<T>,
        known: &[&str],
        attribute: impl Fn(&T, &str) -> String,
    ) -> Result<Vec<T>, Fault> {
        if let Some(unknown) = self
            .filters
            .iter()
            .find(|f| !known.contains(&f.name.as_str()))
        {
            return Err(Fault::invalid(format!(
                "Unrecognized filter name {:?}; this operation knows {}",
                unknown.name,
                known.join(", ")
            )));
        }
        Ok(resources
            .into_iter()
            .filter(|r| {
                self.filters
                    .iter()
                    .all(|f| f.values.contains(&attribute(r, &f.name)))
            })
            .collect())
    }

    /// One page of at most `MaxRecords` (20 to `most`, by default 100) and the
    /// marker of the next.
    pub(super) fn page<T>(
        &self,
        resources: Vec<T>,
        most: i64,
    ) -> Result<(Vec<T>, Option<String>), Fault> {
        let size = self.max_records.unwrap_or(100);
        if !(20..=most).contains(&size) {
            return Err(Fault::invalid(format!(
                "MaxRecords must be between 20 and {most}: {size}"
            )));
        }
        let size = usize::try_from(size).unwrap_or(100);
        let begin = match self.marker.as_deref() {
            None | Some("") => 0,
            Some(marker) => read_marker(marker)?,
        };
        let rest = resources.len().saturating_sub(begin);
        let marker = (rest > size).then(|| format!("from-{}", begin + size));
        Ok((
            resources.into_iter().skip(begin).take(size).collect(),
            marker,
        ))
    }
}

fn read_marker(marker: &str) -> Result<usize, Fault> {
    marker
        .strip_prefix("from-")
        .and_then(|m| m.parse().ok())
        .ok_or_else(|| Fault::invalid(format!("Marker {marker:?} was not handed out")))
}

/// Epoch milliseconds as awsJson1.1 writes a timestamp: seconds with a fraction.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact to the millisecond until the year 287396"
)]
pub(super) fn seconds(epoch_ms: i64) -> f64 {
    epoch_ms as f64 / 1_000.0
}

/// An answer without the members that have no value: DMS leaves them out.
pub(super) fn without_nulls(answer: Value) -> Value {
    match answer {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| (k, without_nulls(v)))
            .collect(),
        Value::Array(values) => values.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap() {
        let mut request = DescribeRequest {
            max_records: Some(20),
            ..DescribeRequest::default()
        };
        let mut seen = Vec::new();
        loop {
            let (page, marker) = request.page((0..45).collect(), 100).unwrap();
            seen.extend(page);
            match marker {
                Some(marker) => request.marker = Some(marker),
                None => break,
            }
        }
        assert_eq!(seen, (0..45).collect::<Vec<_>>());
        request.marker = Some("elsewhere".into());
        assert!(request.page(vec![1], 100).is_err());
        request.max_records = Some(5);
        assert!(request.page(vec![1], 100).is_err());
    }
}
