//! Errors against the cost of networks, as in the paper's Fig. 3.

use densenet_models::{DenseNet121, DenseNet201};
use densenet_runtime::Network;
use densenet_runtime::figures::{Efficiency, Measured};

#[test]
fn costs_are_those_of_the_papers_table() {
    let one = Measured::of("121", &DenseNet121::PLAN, 25.02);
    assert_eq!(one.parameters, 7_978_856);
    assert!((one.multiply_adds as f64 / 2.834e9 - 1.0).abs() < 1e-3);
    assert_eq!((one.name.as_str(), one.error), ("121", 25.02));
}

#[test]
fn each_network_has_a_point_in_each_panel() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("efficiency.png");
    let networks = vec![
        Measured::of("121", &DenseNet121::PLAN, 25.02),
        Measured::of("201", &DenseNet201::PLAN, 22.58),
    ];
    let one = Measured::of("own", &DenseNet121::PLAN, 24.0);
    let figure = Efficiency::default()
        .with("paper", networks)
        .with("own", vec![one]);
    figure.draw(&path, "Efficiency", "top-1 error (%)").unwrap();
    let picture = densenet_runtime::data::read(&path).unwrap();
    let width = picture.width as usize;
    let count = |colour: [u8; 3], half: usize| {
        let pixels = picture.pixels.chunks_exact(3).enumerate();
        let own = pixels.filter(|(i, pixel)| *pixel == colour && i % width / (width / 2) == half);
        own.count()
    };
    for half in [0, 1] {
        // A point has about 150 pixels, a line and its sample in the legend some hundred more.
        let (line, point) = (count([31, 90, 166], half), count([192, 57, 43], half));
        assert!(line > 600, "{line}");
        assert!((250..600).contains(&point), "{point}");
    }
}

#[test]
fn what_cannot_be_drawn_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let draw = |networks, path: &str| {
        let figure = Efficiency::default().with("own", networks);
        let path = folder.path().join(path);
        figure.draw(path, "", "error").unwrap_err().to_string()
    };
    let network = |error| vec![Measured::of("121", &DenseNet121::PLAN, error)];
    let message = draw(Vec::new(), "a.png");
    assert!(
        message.ends_with("there is no network to draw"),
        "{message}"
    );
    let message = draw(network(f64::NAN), "a.png");
    assert!(message.ends_with("the error of 121 is NaN"), "{message}");
    let message = draw(network(1.0), "no/a.png");
    assert!(
        message.starts_with("cannot draw ") && message.contains("no/a.png"),
        "{message}"
    );
}
