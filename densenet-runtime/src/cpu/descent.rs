//! A step along the gradients on the CPU: each thread updates its share of the parameters.

use std::ops::Range;

use densenet_cpu::engine::{Engine, Parts, shares, split_rows};

use crate::executor::{AdamW, Group, NORM_EPSILON, Sgd};

/// The parameters of a step, and their gradients.
pub struct Moved<'a> {
    pub parameters: &'a mut [f32],
    pub momentum: &'a mut [f32],
    pub gradients: &'a [f32],
    /// They contain each parameter once, in order.
    pub groups: &'a [Group],
    /// A factor for the gradients.
    pub factor: f32,
}

/// The factor that gradients are clipped with, so that the norm of all is at most `most`.
pub fn clip(engine: &mut Engine, gradients: &[f32], most: f32) -> f32 {
    let norm = sum_of_squares(engine, gradients).sqrt() as f32;
    let factor = most / (norm + NORM_EPSILON);
    // NaN stays.
    if factor >= 1.0 { 1.0 } else { factor }
}

/// Each thread sums its share in a fixed order.
fn sum_of_squares(engine: &mut Engine, values: &[f32]) -> f64 {
    let mut parts: Parts<_> = shares(values.len(), engine.team.threads())
        .into_iter()
        .map(|range| (range, 0.0))
        .collect();
    engine.team.each(&mut parts, |_, (range, sum)| {
        const LANES: usize = 8;
        let mut sums = [0.0f64; LANES];
        for values in values[range.clone()].chunks(LANES) {
            for (sum, &value) in sums.iter_mut().zip(values) {
                *sum += f64::from(value) * f64::from(value);
            }
        }
        *sum = sums.iter().sum();
    });
    parts.iter().map(|(_, sum)| sum).sum()
}

/// The part of each group that lies in a range, counted from the range's start.
fn within<'a>(
    groups: &'a [Group],
    range: &Range<usize>,
) -> impl Iterator<Item = (Range<usize>, &'a Group)> {
    let Range { start, end } = *range;
    let groups = groups.iter().filter(move |group| {
        let own = &group.range;
        own.start.max(start) < own.end.min(end)
    });
    groups.map(move |group| {
        let own = &group.range;
        (
            own.start.max(start) - start..own.end.min(end) - start,
            group,
        )
    })
}

/// SGD with momentum.
pub fn sgd(engine: &mut Engine, moved: Moved<'_>, sgd: Sgd) {
    let Moved {
        parameters,
        momentum,
        gradients,
        groups,
        factor,
    } = moved;
    let shares = shares(parameters.len(), engine.team.threads());
    let mut parts: Parts<_> = shares
        .iter()
        .cloned()
        .zip(split_rows(parameters, 1, &shares))
        .zip(split_rows(momentum, 1, &shares))
        .collect();
    engine
        .team
        .each(&mut parts, |_, ((range, parameters), momentum)| {
            let gradients = &gradients[range.clone()];
            for (own, group) in within(groups, range) {
                let rate = group.rate * sgd.learning_rate;
                let decay = group.decay * sgd.weight_decay;
                let values = parameters[own.clone()]
                    .iter_mut()
                    .zip(&mut momentum[own.clone()]);
                for ((parameter, momentum), gradient) in values.zip(&gradients[own]) {
                    let slope = factor * gradient + decay * *parameter;
                    *momentum = sgd.momentum * *momentum + slope;
                    let step = if sgd.nesterov {
                        slope + sgd.momentum * *momentum
                    } else {
                        *momentum
                    };
                    *parameter -= rate * step;
                }
            }
        });
}

/// AdamW; the momentum is the first moment.
pub fn adamw(engine: &mut Engine, moved: Moved<'_>, second_moments: &mut [f32], adamw: AdamW) {
    let Moved {
        parameters,
        momentum,
        gradients,
        groups,
        factor,
    } = moved;
    let ([fresh1, fresh2], [correction1, correction2]) = (adamw.fresh(), adamw.corrections());
    let shares = shares(parameters.len(), engine.team.threads());
    let mut parts: Parts<_> = shares
        .iter()
        .cloned()
        .zip(split_rows(parameters, 1, &shares))
        .zip(split_rows(momentum, 1, &shares))
        .zip(split_rows(second_moments, 1, &shares))
        .collect();
    engine
        .team
        .each(&mut parts, |_, (((range, parameters), first), second)| {
            let gradients = &gradients[range.clone()];
            for (own, group) in within(groups, range) {
                let rate = group.rate * adamw.learning_rate;
                let kept = 1.0 - rate * (group.decay * adamw.weight_decay);
                let moments = first[own.clone()].iter_mut().zip(&mut second[own.clone()]);
                let values = parameters[own.clone()].iter_mut().zip(moments);
                for ((parameter, (first, second)), gradient) in values.zip(&gradients[own]) {
                    let slope = factor * gradient;
                    *first += fresh1 * (slope - *first);
                    *second += fresh2 * (slope * slope - *second);
                    let deviation = correction2 * second.sqrt() + adamw.epsilon;
                    *parameter = kept * *parameter - rate * (correction1 * *first / deviation);
                }
            }
        });
}

/// Moves an average by a share of the way to some values.
pub fn average(engine: &mut Engine, average: &mut [f32], values: &[f32], fresh: f32) {
    let shares = shares(values.len(), engine.team.threads());
    let mut parts: Parts<_> = shares
        .iter()
        .cloned()
        .zip(split_rows(average, 1, &shares))
        .collect();
    engine.team.each(&mut parts, |_, (range, average)| {
        for (average, value) in average.iter_mut().zip(&values[range.clone()]) {
            *average += fresh * (value - *average);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_meets_its_part_of_each_group() {
        let group = |range: Range<usize>| Group {
            range,
            ..Group::all(0)
        };
        let groups = [group(0..3), group(3..4), group(4..10)];
        let parts = |range: Range<usize>| -> Vec<Range<usize>> {
            within(&groups, &range).map(|(own, _)| own).collect()
        };
        assert_eq!(parts(0..10), [0..3, 3..4, 4..10]);
        assert_eq!(parts(2..5), [0..1, 1..2, 2..3]);
        let of_the_last = parts(5..9);
        assert_eq!((of_the_last.len(), of_the_last[0].clone()), (1, 0..4));
        assert!(parts(10..10).is_empty());
    }
}
