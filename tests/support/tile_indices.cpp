// Runs the index arithmetic of kernels/tile.h on the host, against the layouts that the instruction sets define (PTX ISA,
// "ldmatrix" and "Matrix Fragments for mma.m16n8k16 with floating point type"; AMD's matrix instruction calculator).
// Prints one line a fault and exits with 1 if there was any.
#include <cstdio>
#include <set>
#include <vector>

typedef unsigned int u32;
#define INDEX static inline
#include "../../kernels/tile.h"

static int faults = 0;
#define EXPECT(holds, ...)                                                                                             \
    do {                                                                                                               \
        if (!(holds)) {                                                                                                \
            faults++;                                                                                                  \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
        }                                                                                                              \
    } while (0)

// A tile [rows][8 PIECES] of numbered elements, as it lies in LDS.
template <u32 PIECES> struct Tile {
    u32 rows;
    std::vector<u32> lds;
    explicit Tile(u32 rows) : rows(rows), lds(rows * PIECES * 8, ~0u) {
        for (u32 row = 0; row < rows; row++)
            for (u32 piece = 0; piece < PIECES; piece++) {
                u32 at = place<PIECES>(row, piece);
                EXPECT(at < rows * PIECES && lds[8 * at] == ~0u, "place<%u>(%u, %u) is taken", PIECES, row, piece);
                for (u32 i = 0; i < 8; i++)
                    lds[8 * at + i] = id(row, 8 * piece + i);
            }
    }
    static u32 id(u32 row, u32 column) { return row * 8 * PIECES + column; }
};

// Eight accesses of 16 bytes that LDS serves together meet different banks: 128 bytes are all banks once.
static void no_conflict(const std::vector<u32>& places, const char* what, u32 at) {
    std::set<u32> groups;
    for (u32 place : places)
        groups.insert(place % 8);
    EXPECT(groups.size() == places.size(), "%s: bank conflict at %u", what, at);
}

// ldmatrix.x4: lanes 8 i … 8 i + 7 name the rows of matrix i, by place; thread t gets elements 2 (t % 4) and the next of
// row t / 4 of each, transposed elements t / 4 of rows 2 (t % 4) and the next.
template <u32 PIECES, class Row, class Piece>
static void ldmatrix(const Tile<PIECES>& tile, Row row, Piece piece, bool transposed, u32 (&out)[32][4][2], const char* what) {
    u32 at[32];
    for (u32 lane = 0; lane < 32; lane++)
        at[lane] = place<PIECES>(row(lane), piece(lane));
    for (u32 i = 0; i < 4; i++)
        no_conflict(std::vector<u32>(at + 8 * i, at + 8 * i + 8), what, i);
    for (u32 t = 0; t < 32; t++)
        for (u32 i = 0; i < 4; i++)
            for (u32 j = 0; j < 2; j++) {
                u32 r = transposed ? t % 4 * 2 + j : t / 4, c = transposed ? t / 4 : t % 4 * 2 + j;
                out[t][i][j] = tile.lds[8 * at[8 * i + r] + c];
            }
}

template <u32 PIECES> static void nvidia_operands(u32 rows) {
    Tile<PIECES> tile(rows);
    for (u32 row0 = 0; row0 < rows; row0 += 16)
        for (u32 step = 0; step < PIECES / 2; step++) {
            u32 got[32][4][2];
            ldmatrix(tile, [=](u32 l) { return row0 + left_row(l); }, [=](u32 l) { return 2 * step + left_piece(l); }, false, got, "left");
            for (u32 t = 0; t < 32; t++)
                for (u32 i = 0; i < 4; i++)
                    for (u32 j = 0; j < 2; j++) {
                        // a [2 i + j]: row t / 4 and 8 more where i is odd, k t % 4 · 2 + j and 8 more for the last four.
                        u32 m = t / 4 + i % 2 * 8, k = t % 4 * 2 + j + i / 2 * 8;
                        EXPECT(got[t][i][j] == Tile<PIECES>::id(row0 + m, 16 * step + k), "left: lane %u a%u", t, 2 * i + j);
                    }
            ldmatrix(tile, [=](u32 l) { return row0 + right_row(l); }, [=](u32 l) { return 2 * step + right_piece(l); }, false, got, "right");
            for (u32 t = 0; t < 32; t++)
                for (u32 i = 0; i < 4; i++)
                    for (u32 j = 0; j < 2; j++) {
                        // Product i / 2, b [2 (i % 2) + j]: column t / 4, k t % 4 · 2 + j and 8 more for the last two.
                        u32 n = i / 2 * 8 + t / 4, k = t % 4 * 2 + j + i % 2 * 8;
                        EXPECT(got[t][i][j] == Tile<PIECES>::id(row0 + n, 16 * step + k), "right: lane %u b%u", t, 2 * i + j);
                    }
            ldmatrix(tile, [=](u32 l) { return row0 + right_transposed_row(l); }, [=](u32 l) { return 2 * step + right_transposed_piece(l); }, true, got, "transposed");
            for (u32 t = 0; t < 32; t++)
                for (u32 i = 0; i < 4; i++)
                    for (u32 j = 0; j < 2; j++) {
                        u32 n = i / 2 * 8 + t / 4, k = t % 4 * 2 + j + i % 2 * 8;
                        EXPECT(got[t][i][j] == Tile<PIECES>::id(row0 + k, 16 * step + n), "transposed: lane %u b%u", t, 2 * i + j);
                    }
        }
}

// c [0 … 3] of each product: rows t / 4 and 8 more, columns t % 4 · 2 and the next; and the sums as a left operand.
static void nvidia_sums() {
    for (u32 t = 0; t < 32; t++)
        for (u32 e = 0; e < 8; e++) {
            u32 product = e / 4, c = e % 4;
            EXPECT(mma_row(t, e) == t / 4 + c / 2 * 8, "row of lane %u c%u", t, e);
            EXPECT(mma_col(t, e) == product * 8 + t % 4 * 2 + c % 2, "column of lane %u c%u", t, e);
            // Register i of a left operand holds elements 2 i and 2 i + 1.
            u32 i = e / 2, j = e % 2;
            EXPECT(mma_row(t, e) == t / 4 + i % 2 * 8 && mma_col(t, e) == t % 4 * 2 + j + i / 2 * 8, "weights of lane %u, %u", t, e);
        }
}

// Stores into tiles: by copies of whole pieces, and of converted weights.
template <u32 PIECES> static void copies(u32 rows, u32 threads) {
    std::set<u32> seen;
    for (u32 base = 0; base < rows * PIECES; base += threads)
        for (u32 thread = 0; thread < threads; thread += 8) {
            std::vector<u32> places;
            for (u32 i = 0; i < 8; i++)
                places.push_back(place<PIECES>(copied_row<PIECES>(base + thread + i), copied_piece<PIECES>(base + thread + i)));
            no_conflict(places, "copies", thread);
            seen.insert(places.begin(), places.end());
        }
    EXPECT(seen.size() == rows * PIECES, "copies fill %zu of %u pieces", seen.size(), rows * PIECES);
}
template <u32 SIXTEENS, u32 EACH> static void expansions(u32 threads) {
    constexpr u32 PIECES = 2 * SIXTEENS;
    std::set<u32> seen;
    for (u32 part = 0; part < EACH; part++)
        for (u32 half = 0; half < 2; half++)
            for (u32 thread = 0; thread < threads; thread += 8) {
                std::vector<u32> places;
                for (u32 i = thread; i < thread + 8; i++) {
                    u32 sixteen = expanded_sixteen<SIXTEENS, EACH>(i, part);
                    places.push_back(place<PIECES>(expanded_row<SIXTEENS, EACH>(i), expanded_piece(sixteen, half)));
                }
                no_conflict(places, "expansions", thread);
                seen.insert(places.begin(), places.end());
            }
    EXPECT(seen.size() == threads * EACH * 2, "expansions fill %zu pieces", seen.size());
}

// Tile t is in LDS when it is read, and nobody writes where it is read. Groups of copies complete in their order, and a
// wait for all but n leaves the n newest.
static void pipeline(u32 stages, u32 tiles) {
    std::vector<int> buffer(stages, -1);
    u32 committed = 0;
    auto fetch = [&](u32 t) {
        if (t < tiles)
            buffer[t % stages] = (int)t;
        committed++;
    };
    for (u32 t = 0; t < stages - 1; t++)
        fetch(t);
    for (u32 t = 0; t < tiles; t++) {
        u32 complete = committed - (stages - 2);
        EXPECT(t < complete, "tile %u is read while it is on its way", t);
        // After the barrier tile t − 1 is nobody's.
        fetch(t + stages - 1);
        EXPECT(buffer[t % stages] == (int)t, "tile %u was overwritten", t);
    }
}

// The 32 × 32 product of CDNA, twice: lane l, element j of each operand's half p is k 4 (l / 32) + j of product p. What the
// lanes load must be 16 different k, the same on both sides, of rows l % 32.
static void cdna() {
    Tile<4> tile(128);
    for (u32 row0 = 0; row0 < 128; row0 += 32)
        for (u32 step = 0; step < 2; step++) {
            std::set<u32> ks;
            std::vector<u32> places;
            for (u32 l = 0; l < 64; l++) {
                u32 at = place<4>(row0 + mfma32_row(l), 2 * step + mfma32_piece(l));
                places.push_back(at);
                for (u32 i = 0; i < 8; i++) {
                    u32 id = tile.lds[8 * at + i];
                    EXPECT(id / 32 == row0 + l % 32, "lane %u reads row %u", l, id / 32);
                    if (l % 32 == 0)
                        ks.insert(id % 32);
                }
            }
            EXPECT(ks.size() == 16 && *ks.begin() == 16 * step, "step %u multiplies %zu of K", step, ks.size());
            // 16-byte reads are served in groups of eight lanes, neighbouring ones or these.
            static const u32 groups[8][8] = {{0, 1, 2, 3, 12, 13, 14, 15}, {4, 5, 6, 7, 8, 9, 10, 11}, {16, 17, 18, 19, 28, 29, 30, 31}, {20, 21, 22, 23, 24, 25, 26, 27}, {32, 33, 34, 35, 44, 45, 46, 47}, {36, 37, 38, 39, 40, 41, 42, 43}, {48, 49, 50, 51, 60, 61, 62, 63}, {52, 53, 54, 55, 56, 57, 58, 59}};
            for (u32 g = 0; g < 8; g++) {
                std::vector<u32> neighbours(places.begin() + 8 * g, places.begin() + 8 * g + 8), others;
                for (u32 l : groups[g])
                    others.push_back(places[l]);
                no_conflict(neighbours, "mfma, neighbours", g);
                no_conflict(others, "mfma", g);
            }
        }
    std::set<u32> rows;
    for (u32 l = 0; l < 64; l += 32)
        for (u32 e = 0; e < 16; e++)
            rows.insert(mfma32_sum_row(l, e));
    EXPECT(rows.size() == 32 && *rows.rbegin() == 31, "the sums of a column are %zu rows", rows.size());
}

int main() {
    nvidia_operands<8>(128);
    nvidia_operands<8>(64);
    nvidia_operands<16>(64);
    nvidia_sums();
    copies<8>(128, 128);
    copies<8>(64, 128);
    copies<16>(64, 128);
    copies<4>(128, 256);
    copies<4>(128, 128);
    // NVIDIA, CDNA and RDNA3; large tiles and small.
    expansions<4, 4>(128);
    expansions<4, 2>(128);
    expansions<2, 1>(256);
    expansions<2, 1>(128);
    for (u32 tiles = 1; tiles < 9; tiles++)
        for (u32 stages = 2; stages < 5; stages++)
            pipeline(stages, tiles);
    cdna();
    printf("%d faults\n", faults);
    return faults != 0;
}
