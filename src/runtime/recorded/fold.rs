//! Layers that run the same kernels, folded into one.

use super::Row;
use crate::graph::Section;

/// Nodes that are drawn together.
pub struct Cluster {
    pub title: String,
    /// A drawn node each: the indices of the rows it stands for, one a layer.
    pub nodes: Vec<Vec<usize>>,
}

/// The clusters in the order of their first rows. The first `layers` layers stand alone; of the rest,
/// those that do the same in the same order become one.
pub fn fold(rows: &[Row<'_>], layers: u32) -> Vec<Cluster> {
    let mut groups: Vec<(Key, Vec<u32>, Vec<Vec<usize>>)> = Vec::new();
    for (section, members) in sections(rows) {
        let key = match section {
            Section::Layer(layer) if layer >= layers => {
                Key::Folded(members.iter().map(|&row| rows[row].role()).collect())
            }
            section => Key::Alone(section),
        };
        let layer = match section {
            Section::Layer(layer) => vec![layer],
            _ => Vec::new(),
        };
        match groups.iter_mut().find(|(known, ..)| *known == key) {
            Some((_, folded, nodes)) => {
                folded.extend(layer);
                for (node, row) in nodes.iter_mut().zip(members) {
                    node.push(row);
                }
            }
            None => groups.push((
                key,
                layer,
                members.into_iter().map(|row| vec![row]).collect(),
            )),
        }
    }
    let cluster = |(key, layers, nodes): (Key, Vec<u32>, Vec<Vec<usize>>)| Cluster {
        title: match key {
            Key::Alone(section) => section.to_string(),
            Key::Folded(_) => title(&layers),
        },
        nodes,
    };
    groups.into_iter().map(cluster).collect()
}

#[derive(PartialEq)]
enum Key {
    Alone(Section),
    /// The layer's roles in order.
    Folded(Vec<String>),
}

/// The sections in the order of their first rows, each with all its rows.
fn sections(rows: &[Row<'_>]) -> Vec<(Section, Vec<usize>)> {
    let mut sections: Vec<(Section, Vec<usize>)> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        match sections.iter_mut().find(|(s, _)| *s == row.section) {
            Some((_, members)) => members.push(index),
            None => sections.push((row.section, vec![index])),
        }
    }
    sections
}

/// `layers 2-29: each node is the sum of 28`
fn title(layers: &[u32]) -> String {
    let runs = layers.chunk_by(|a, b| b - a == 1).map(|run| match run {
        [one] => one.to_string(),
        run => format!("{}-{}", run[0], run[run.len() - 1]),
    });
    let runs = runs.collect::<Vec<_>>().join(", ");
    match layers.len() {
        1 => format!("layer {runs}"),
        count => format!("layers {runs}: each node is the sum of {count}"),
    }
}
