//! What a session says of itself.

use super::Session;

/// What a session has done and what it holds.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Report {
    pub device: String,
    /// Why the device is the processor where a GPU would have been taken; `None` where there is no GPU.
    pub device_fallback: Option<String>,
    pub threads: usize,
    pub launches_per_step: usize,
    /// Nodes that the recording of the decode step holds, as it counts them.
    pub nodes: usize,
    /// Decode steps replayed, as the recording counted them.
    pub replays: u64,
    /// Prompt chunks replayed.
    pub prompt_replays: u64,
    /// Rows of prompts computed: tokens that were not in the cache.
    pub prompt_rows: u64,
    /// Steps and chunks run eagerly.
    pub eager_steps: u64,
    /// Whether replaying replays a recording; `false` where a driver could not capture.
    pub graph_replay: bool,
    /// Why not.
    pub graph_fallback: Option<String>,
    /// What else a driver could not do and why, so that steps take longer.
    pub shortfalls: Vec<String>,
    /// Microseconds in all that the host has spent in the driver launching decode steps (GPUs only).
    pub decode_launch_us: Option<f64>,
    pub recordings: usize,
    pub weight_bytes: u64,
    /// Bytes of the weights in the file, and the milliseconds until the device had them.
    pub file_bytes: u64,
    pub weights_ms: f64,
    pub kv_bytes: u64,
    pub arena_bytes: u64,
}

impl Session {
    /// What has been done so far, by the recordings' own counters.
    pub fn report(&self) -> Report {
        let all = || std::iter::once(&self.decode).chain(&self.prompts);
        let fallback = all().find_map(|recording| recording.fallback());
        let loading = self.backend.loading();
        let mut shortfalls: Vec<String> = Vec::new();
        for shortfall in all().flat_map(|recording| recording.shortfalls()) {
            if !shortfalls.contains(shortfall) {
                shortfalls.push(shortfall.clone());
            }
        }
        Report {
            device: self.backend.describe(),
            device_fallback: self.device_fallback.clone(),
            threads: self.backend.threads(),
            launches_per_step: self.decode.program().launches.len(),
            nodes: self.decode.nodes(),
            replays: self.decode.replays(),
            prompt_replays: self.prompts.iter().map(|p| p.replays()).sum(),
            prompt_rows: self.prompt_rows,
            eager_steps: all().map(|recording| recording.eager_steps()).sum(),
            graph_replay: fallback.is_none(),
            graph_fallback: fallback.map(str::to_string),
            shortfalls,
            decode_launch_us: self.decode.launch_time().map(|t| t.as_secs_f64() * 1e6),
            recordings: all().count(),
            weight_bytes: self.backend.weight_bytes(),
            file_bytes: loading.file_bytes,
            weights_ms: loading.time.as_secs_f64() * 1e3,
            kv_bytes: self.decode.program().state_bytes() as u64,
            arena_bytes: all()
                .map(|recording| recording.program().arena_bytes as u64)
                .max()
                .unwrap_or(0),
        }
    }
}
