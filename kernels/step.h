// What differs between two replays of a recording.
#pragma once
#include "common.h"

// Lies in device memory. Recordings of one row share one, which step_set writes between replays and sample_choose at the
// end of each; the others have their own, written by step_fetch at the start of every replay.
struct Step {
    u32 position;    // of row 0
    u32 rows;        // live rows
    u32 reserved[2];
    u32 tokens[];    // [R], the first `rows` of them valid
};

// Rows of the recording that carry tokens this time. A step has at least one, so that a recording of one row need not
// wait for the step to arrive.
DEVICE u32 live_rows(const Step* step, u32 rows) { return rows == 1 ? 1 : minimum(step->rows, rows); }
