//! The name that a misspelled one most likely means.

/// The number of names that a message lists; it counts the others.
const LISTED: usize = 20;
/// How many examples a message gives.
pub(super) const FEW: usize = 5;

/// The end of a message about a name that is not among `names`: the nearest one, and all of them.
pub(super) fn suggestion(name: &str, names: &[impl AsRef<str>]) -> String {
    let names = names.iter().map(AsRef::as_ref);
    let lower = name.to_lowercase();
    let likeness =
        |other: &str| strsim::normalized_damerau_levenshtein(&lower, &other.to_lowercase());
    let nearest = names
        .clone()
        .map(|other| (likeness(other), other))
        .filter(|(likeness, _)| *likeness > 0.5)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let nearest = nearest.map(|(_, other)| format!("; did you mean `{other}`?"));
    format!(
        "{} There are {}",
        nearest.unwrap_or_else(|| ".".to_owned()),
        listed(names)
    )
}

/// Names for a message: the first ones, and the number of the others.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut list: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if list.len() > LISTED {
        let more = list.split_off(LISTED).len();
        list.push(format!("and {more} more"));
    }
    list.join(", ")
}
