//! What the macro generates and reports; `ui-tests` shows the same as rustc prints it.

use proc_macro2::{Delimiter, Group, TokenStream};
use proptest::prelude::*;
use quote::quote;

fn expand(spec: &str) -> String {
    let tokens: TokenStream = spec.parse().expect("the spec is made of tokens");
    let file = syn::parse2(crate::compile(tokens)).expect("the expansion is made of items");
    prettyplease::unparse(&file)
}

#[test]
fn a_small_network_reads_as_a_person_would_write_it() {
    insta::assert_snapshot!(expand(
        "/// A network that fits on a page.
         pub Small { blocks: [2, 1], k: 4, theta: 0.5, bottleneck, input: [3, 8, 8] }"
    ));
}

#[test]
fn names_of_classes_are_written_once_and_documented() {
    let expansion = expand("Pets { blocks: [1], k: 1, classes: [\"cat\", \"dog\"] }");
    let start = expansion.find("impl ::densenet_runtime::Network for Pets");
    let (_, implementation) = expansion.split_at(start.expect("there is an impl"));
    let (implementation, _) = implementation.split_once("\n    }\n").expect("it ends");
    insta::assert_snapshot!(implementation);
    assert!(expansion.contains("/// * classes: `cat`, `dog`\n"));
}

/// The messages of a spec, in their order.
fn messages(spec: &str) -> Vec<String> {
    let expansion = expand(spec);
    let messages = expansion.split("::core::compile_error!").skip(1);
    let text = messages.map(|rest| {
        rest.split_once('"')
            .and_then(|(_, rest)| rest.split_once("\"\n"))
    });
    text.flatten()
        .map(|(message, _)| message.to_owned())
        .collect()
}

proptest! {
    /// For any tokens, the macro returns items: errors, a network, or both.
    #[test]
    fn nothing_that_is_written_makes_the_macro_panic(words in prop::collection::vec(word(), 0..30)) {
        let spec = words.join(" ");
        if let Ok(tokens) = spec.parse::<TokenStream>() {
            prop_assert!(syn::parse2::<syn::File>(crate::compile(tokens)).is_ok(), "{}", spec);
        }
    }

    /// A spec of readable keys is expanded quickly and without a panic, however absurd.
    #[test]
    fn no_numbers_make_the_macro_panic(
        blocks in prop::collection::vec(number(), 0..4),
        [k, init, channels, height, width, classes, multiple] in prop::array::uniform7(number()),
    ) {
        let spec = format!(
            "blocks: {blocks:?}, k: {k}, init: {init}, input: [{channels}, {height}, {width}], \
             classes: {classes}, bottleneck: {multiple}, theta: 0.5, memory: 1 KiB at {k}"
        );
        let layers: u128 = blocks.iter().sum();
        // A valid network is expanded, so keep it short.
        prop_assume!(!(100..5_000).contains(&layers));
        let tokens: TokenStream = spec.parse().expect("the spec is made of tokens");
        prop_assert!(syn::parse2::<syn::File>(crate::compile(tokens)).is_ok(), "{}", spec);
    }
}

fn number() -> impl Strategy<Value = u128> {
    prop_oneof![
        0u128..40,
        1u128 << 30..1 << 33,
        u128::from(u64::MAX) - 2..=u128::from(u64::MAX) + 2
    ]
}

fn word() -> impl Strategy<Value = String> {
    let keys = crate::keys::KEYS
        .iter()
        .map(|key| key.name)
        .collect::<Vec<_>>();
    let others = vec![
        ",",
        ":",
        "::",
        "=",
        "-",
        "[",
        "]",
        "[1, 2]",
        "[3, 32, 32]",
        "[\"cat\", \"dog\"]",
        "{",
        "}",
        "1",
        "0",
        "0.5",
        "64",
        "GiB",
        "at",
        "imagenet",
        "cifar",
        "pub",
        "Name",
        "\"text\"",
        "'c'",
        "32u8",
        "1e9",
        "# [doc = \"\"]",
        "# [densenet (crate = a)]",
        "crate",
        "struct",
        "99999999999999999999999999",
    ];
    prop_oneof![
        prop::sample::select(keys).prop_map(str::to_owned),
        prop::sample::select(others).prop_map(str::to_owned),
    ]
}

#[test]
fn floors_are_taken_of_the_digits() {
    // In floating point 0.29 * 100 is 28.999999999999996.
    let expansion = expand("Exact { blocks: [1, 1], k: 1, init: 99, theta: 0.29 }");
    assert!(expansion.contains("Conv<100, 29, 1, E, D>"));
}

#[test]
fn a_misspelled_key_is_recognised() {
    for (written, meant) in [
        ("grow_rate", "k"),
        ("growth", "k"),
        ("block", "blocks"),
        ("compresion", "theta"),
        ("tetha", "theta"),
        ("botleneck", "bottleneck"),
        ("num_classes", "classes"),
        ("drop_rate", "dropout"),
        ("K", "k"),
    ] {
        let nearest = crate::keys::Key::nearest(written).map(|key| key.name);
        assert_eq!(nearest, Some(meant), "{written}");
    }
    assert!(crate::keys::Key::nearest("colour").is_none());
}

#[test]
fn every_mistake_of_a_spec_is_reported_at_once() {
    let messages = messages(
        "pub Network {
             blocks: [6, 12, 0, 32], grow: 32, theta: 1.5, theta: 0.5, dropout: 1.0, input: [3, 24, 24],
             classes: [\"cat\", \"\", \"cat\"]
         }",
    );
    let starts = [
        "`blocks` (layers of each block) must be at least 1",
        "unknown key `grow`",
        "compression `theta` must be in (0, 1]",
        "`theta` is given twice",
        "`theta` is first given here",
        "`dropout` must be in [0, 1)",
        "the name of a class is empty",
        "class \\\"cat\\\" is named twice",
        "\\\"cat\\\" is first named here",
        "a 24x24 input is too small",
    ];
    assert_eq!(messages.len(), starts.len(), "{messages:#?}");
    for (message, start) in messages.iter().zip(starts) {
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn a_stand_in_for_a_bad_value_is_not_reported_itself() {
    // With theta = 1, or k = 1, these would be other networks.
    for (spec, errors) in [
        ("blocks: [1, 1], k: 0, init: 1, theta: 0.1", 1),
        ("blocks: [1, 1, 1], k: [1, 1], init: 1, theta: 0.1", 1),
        ("blocks: [2, 2, 2, 2, 2, 2, 2, 2], stem: wide, k: 4", 1),
    ] {
        assert_eq!(
            messages(spec).len(),
            errors,
            "{spec}: {:#?}",
            messages(spec)
        );
    }
}

#[test]
fn a_mistake_before_the_keys_does_not_make_them_missing() {
    for name in ["DenseNet-BC", "Net<E>", "Self"] {
        let found = messages(&format!("pub {name} {{ blocks: [6, 12], k: 12 }}"));
        assert_eq!(found.len(), 1, "{name}: {found:#?}");
    }
}

#[test]
fn a_network_named_as_a_type_parameter_is_refused_alone() {
    for name in ["S", "T", "E", "D", "V", "E2", "D2"] {
        let found = messages(&format!("pub {name} {{ blocks: [6, 12], k: 12 }}"));
        let [message] = &found[..] else {
            panic!("{found:#?}");
        };
        assert!(
            message.contains(&format!("name it `{name}Net`")),
            "{message}"
        );
    }
}

#[test]
fn lists_that_another_macro_passes_on_are_read() {
    let passed = |tokens| Group::new(Delimiter::None, tokens);
    let (blocks, input) = (passed(quote!([2, 1])), passed(quote!([3, 8, 8])));
    let classes = passed(quote!(["cat", "dog"]));
    let spec = quote!(Pets { blocks: #blocks, k: 4, input: #input, classes: #classes });
    let code = crate::compile(spec).to_string();
    assert!(!code.contains("compile_error"), "{code}");
}
