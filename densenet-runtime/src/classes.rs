//! Whether two lists of classes are the same: labels are indices into them.

/// The most names that a message lists; the others are counted.
const LISTED: usize = 5;

/// The difference between two lists of classes, each with words that say whose it is: the names
/// that only one of them has, or a different order. `None` if they are equal, or if either has no
/// names.
pub(crate) fn difference<A: AsRef<str>, B: AsRef<str>>(
    (ours_are, ours): (&str, &[A]),
    (theirs_are, theirs): (&str, &[B]),
) -> Option<String> {
    let ours: Vec<_> = ours.iter().map(AsRef::as_ref).collect();
    let theirs: Vec<_> = theirs.iter().map(AsRef::as_ref).collect();
    if ours.is_empty() || theirs.is_empty() || ours == theirs {
        return None;
    }
    Some(match (only(&ours, &theirs), only(&theirs, &ours)) {
        (None, None) => order(ours_are, &ours, theirs_are, &theirs),
        (Some(ours), None) => format!("{theirs_are} lacks {ours}"),
        (None, Some(theirs)) => format!("{ours_are} lacks {theirs}"),
        (Some(ours), Some(theirs)) => {
            format!("only {ours_are} has {ours}; only {theirs_are} has {theirs}")
        }
    })
}

/// The names that others do not have.
fn only(names: &[&str], others: &[&str]) -> Option<String> {
    let only = names.iter().filter(|name| !others.contains(name));
    let mut list: Vec<_> = only.map(|name| format!("`{name}`")).collect();
    if list.len() > LISTED {
        let more = list.split_off(LISTED).len();
        list.push(format!("and {more} more"));
    }
    (!list.is_empty()).then(|| list.join(", "))
}

fn order(ours_are: &str, ours: &[&str], theirs_are: &str, theirs: &[&str]) -> String {
    let mut pairs = ours.iter().zip(theirs).enumerate();
    match pairs.find(|(_, (our, their))| our != their) {
        Some((label, (our, their))) => format!(
            "they are in another order: label {label} is `{our}` in {ours_are}, but `{their}` in {theirs_are}"
        ),
        // One list has a name twice.
        None => "they are in another order".to_owned(),
    }
}
