// The bounds of the replication path and what each does when it is reached. All of them can be seen
// in metrics; the ones in an options struct are defaults.
#pragma once

#include <cstddef>
#include <cstdint>

namespace farshore {

// One DATA frame carries at most this much of records; a record never spans frames.
inline constexpr size_t kDataFrameBytes = 1u << 20;
// What the sender may have in flight beyond `received`. Full: the sender waits, the ring fills,
// then the spill, then a gap is opened (docs/design/core.md).
inline constexpr uint64_t kWindowBytes = 32ull << 20;
// Records that are safe in the spool and wait in memory for the segment builder. Full: they are
// dropped from memory and read from the spool again when their turn comes.
inline constexpr uint64_t kBuildQueueBytes = 48ull << 20;
// Sealed segments of one item that wait for the store, are on their way there, or wait to be
// registered: kMaxSegmentsAhead of them (replica/registration.h), and this much memory, those that
// a lost lease left under way included. Full: the builder waits.
inline constexpr uint64_t kMaxSealedBytes = 72ull << 20;
// Puts of all items of an appliance at once, each with a thread that mostly waits. More than one
// item has, so that one whose puts hang leaves some to the others. All taken: items wait in turn.
inline constexpr size_t kUploadThreads = 12;
// A spool file is closed when it is this long, or a quarter of the spool; whole files are what
// trimming frees.
inline constexpr uint64_t kSpoolFileBytes = 64ull << 20;
// The spool of one item. From `kSpoolHighPercent` on the window shrinks; at the bound it is zero.
inline constexpr uint64_t kSpoolBytes = 16ull << 30;
inline constexpr unsigned kSpoolHighPercent = 80;

// When a segment is cut: by size, by age once it is worth an object, by age in any case.
inline constexpr uint64_t kSegmentPayloadBytes = 16ull << 20;
inline constexpr int64_t kSegmentAgeUs = 250'000;
inline constexpr uint64_t kSegmentWorthBytes = 1ull << 20;
inline constexpr int64_t kSegmentMaxAgeUs = 1'000'000;
// A run of nothing but idle marks becomes a segment only when it is this long (10 minutes).
inline constexpr uint64_t kMaxIdleRecords = 600;

// A queue this long means that the CPU is behind: lz4 instead of zstd.
inline constexpr uint64_t kHurryBytes = 24ull << 20;
// And one this long that it does not catch up with that either.
inline constexpr uint64_t kHurryMoreBytes = 96ull << 20;

// Under a bandwidth limit, a segment is at most what may be sent in this time.
inline constexpr int64_t kSegmentSendUs = 2'000'000;
// What a bandwidth limit holds back for longer than this is told.
inline constexpr int64_t kBandwidthBehindUs = 10'000'000;
// A pause or a limit's end is noticed this late at most, when the wall clock steps.
inline constexpr int64_t kRatesAgeUs = 60'000'000;
// Appliance and vault speak of uploads this often; a word is forgotten after kTroubleForgottenUs.
inline constexpr int64_t kUploadsSyncUs = 1'000'000;

inline constexpr int64_t kRetryFirstUs = 50'000;
inline constexpr int64_t kRetryMaxUs = 5'000'000;
// Trouble with the spool, the store or the vault is reported once it is this old, and again while
// it lasts; the vault forgets a report that is not repeated.
inline constexpr int64_t kTroubleAfterUs = 1'000'000;
inline constexpr int64_t kTroubleRepeatUs = 3'000'000;
inline constexpr int64_t kTroubleForgottenUs = 20'000'000;
// A session that said nothing for this long is dead: live agents send an idle mark each second.
inline constexpr int64_t kSessionSilenceUs = 10'000'000;
// A sender that waits for an answer connects again when nothing came for this long.
inline constexpr int64_t kPeerSilenceUs = 20'000'000;
inline constexpr size_t kMaxControlBytes = 2u << 20;
// Of one agent's connection, under way in the vault.
inline constexpr size_t kMaxCompareQuestions = 8;
// About 70 KiB of memory and three descriptors each.
inline constexpr size_t kMaxItemsPerAppliance = 4096;
// The log of each item, and what else its agent may have open: control, comparisons, a group, a
// return.
inline constexpr size_t kMaxConnectionsPerAppliance = 4 * kMaxItemsPerAppliance;
// Of those, who has no certificate yet. Each may enrol in that time.
inline constexpr size_t kMaxUnnamedSessions = 64;
inline constexpr int64_t kUnnamedSessionUs = 60'000'000;

}  // namespace farshore
