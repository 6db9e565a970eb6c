#include "block/image_copy.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>

#include "codec/block_sum.h"

namespace farshore {
namespace {

constexpr uint64_t kPieceBytes = 1u << 20;
constexpr uint64_t kUnitBytes = 4096;  // what a piece begins and ends at, but for the disk's end
constexpr uint64_t kJoinBytes = 16u << 10;  // zeroes between data that are cheaper written
constexpr uint64_t kStretchBytes = 32 * kPieceBytes;
constexpr uint64_t kStretchArea = 64ull << 30;
constexpr uint64_t kExtentsBytes = 1ull << 30;
constexpr uint64_t kSaveBytes = 64u << 20;
constexpr int64_t kSaveIntervalUs = 10'000'000;

// The file of sums: magic, key, then a row a piece: offset, length, reserved, sum.
constexpr std::string_view kMagic("FARSHORE-SUMS-1\n", 16);
constexpr uint64_t kHeadBytes = 16 + 32;
constexpr uint64_t kRowBytes = 32;
constexpr uint64_t kRowsAtOnce = 64;

struct Piece {
    uint64_t offset = 0;
    uint64_t length = 0;
    bool zero = false;  // nothing there, and the target has to be told
    BlockSum sum{};
    bool written = false;
};

BlockSum sum_of(BlockSummer& summer, uint64_t offset, ByteView data) {
    std::vector<BlockSum> blocks;
    for (uint64_t at = 0; at < data.size(); at += kSumBlockBytes)
        blocks.push_back(summer.block(
            0, offset + at, data.subspan(at, std::min(kSumBlockBytes, data.size() - at))));
    return summer.run(0, offset, blocks);
}

Result<SumKey> read_key(File& sums) {
    Bytes head(kHeadBytes);
    FS_ASSIGN(const size_t n, sums.read_at(0, head));
    if (n != kHeadBytes || as_text(ByteView(head).first(16)) != kMagic)
        return fail(Code::kCorrupt, "the file of sums beside the image is damaged",
                    "start the job again");
    SumKey key;
    std::copy_n(head.begin() + 16, key.size(), key.begin());
    return key;
}

// The first error of many threads; who sees one does no more.
class FirstError {
  public:
    void keep(const Status& status) {
        if (status) return;
        const std::lock_guard hold(mutex_);
        if (!error_) error_ = status.error();
        failed_ = true;
    }
    bool failed() const { return failed_; }
    Status status() {
        const std::lock_guard hold(mutex_);
        return error_ ? Status(tl::unexpected(*error_)) : Status();
    }

  private:
    std::mutex mutex_;
    std::atomic<bool> failed_{false};
    std::optional<Error> error_;
};

// One a thread, made at its first use in a pass.
struct Worker {
    explicit Worker(const SumKey& key) : summer(key) {}
    BlockSummer summer;
    Bytes buffer;
};
class Workers {
  public:
    explicit Workers(const SumKey& key) : key_(key) {}
    std::unique_ptr<Worker> take() {
        const std::lock_guard hold(mutex_);
        if (idle_.empty()) return std::make_unique<Worker>(key_);
        auto worker = std::move(idle_.back());
        idle_.pop_back();
        return worker;
    }
    void give_back(std::unique_ptr<Worker> worker) {
        const std::lock_guard hold(mutex_);
        idle_.push_back(std::move(worker));
    }

  private:
    const SumKey key_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Worker>> idle_;
};

class Copier {
  public:
    Copier(ImageCopy& copy, const SumKey& key) : copy_(copy), workers_(key), at_(copy.position) {}

    Status run() {
        saved_us_ = copy_.clock->steady_us();
        before_ = at_.written_bytes;
        while (at_.copied_bytes < copy_.disk_bytes) {
            FS_ASSIGN(std::vector<Piece> pieces, plan());
            FS_TRY(work(pieces));
            FS_TRY(keep_sums(pieces));
            at_.copied_bytes = planned_to_;
            if (copy_.report) FS_TRY(copy_.report(at_.copied_bytes, at_.written_bytes - before_));
        }
        FS_TRY(copy_.to->flush());
        FS_TRY(copy_.sums->sync());
        return keep(at_);
    }

  private:
    // The pieces from where the copy stands, as many as make a stretch.
    Result<std::vector<Piece>> plan() {
        std::vector<Piece> pieces;
        uint64_t payload = 0;
        data_end_ = at_.copied_bytes;
        uint64_t at = at_.copied_bytes;
        const uint64_t end = std::min(copy_.disk_bytes, at + kStretchArea);
        while (at < end && payload < kStretchBytes) {
            FS_ASSIGN(const auto extents,
                      copy_.from->extents(at, std::min(kExtentsBytes, end - at)));
            for (const BlockExtent& extent : extents) {
                uint64_t to = std::min(extent.offset_bytes + extent.length_bytes, end);
                if (to <= at) continue;
                if (!extent.zero) to = std::min(to, at + kStretchBytes - payload);
                if (extent.zero) {
                    if (!copy_.blank) pieces.push_back({at, to - at, true});
                    at = to;
                    continue;
                }
                // Data: in whole units, and joined with what is close before it.
                const uint64_t from = std::max(at / kUnitBytes * kUnitBytes, data_end_);
                const uint64_t until =
                    std::min(copy_.disk_bytes, (to + kUnitBytes - 1) / kUnitBytes * kUnitBytes);
                if (until > from) payload += add_data(pieces, from, until);
                at = std::max(at, to);
                if (payload >= kStretchBytes) break;
            }
        }
        planned_to_ = std::max(at, data_end_);
        return pieces;
    }

    uint64_t add_data(std::vector<Piece>& pieces, uint64_t from, uint64_t until) {
        uint64_t added = 0;
        if (!pieces.empty() && !pieces.back().zero) {
            Piece& last = pieces.back();
            const uint64_t last_end = last.offset + last.length;
            if (from <= last_end + kJoinBytes) from = last_end;
        }
        while (from < until) {
            // Cut where multiples of a piece's size are: targets like it.
            const uint64_t cut = std::min(until, (from / kPieceBytes + 1) * kPieceBytes);
            if (!pieces.empty() && !pieces.back().zero &&
                pieces.back().offset + pieces.back().length == from && from % kPieceBytes != 0)
                pieces.back().length += cut - from;
            else
                pieces.push_back({from, cut - from});
            added += cut - from;
            from = cut;
        }
        data_end_ = until;
        return added;
    }

    // All pieces, and the flush of what was written before them beside them.
    Status work(std::vector<Piece>& pieces) {
        const bool saves =
            unsaved_bytes_ >= kSaveBytes || copy_.clock->steady_us() - saved_us_ >= kSaveIntervalUs;
        const ImageCopyPosition before = at_;
        const size_t extra = saves ? 1 : 0;
        FirstError error;
        copy_.pool->run(pieces.size() + extra, [&](size_t i) {
            if (error.failed()) return;
            if (i < extra) {
                error.keep(copy_.to->flush());
                return;
            }
            auto worker = workers_.take();
            error.keep(copy_piece(pieces[i - extra], *worker));
            workers_.give_back(std::move(worker));
        });
        FS_TRY(error.status());
        if (saves) {
            FS_TRY(copy_.sums->sync());
            FS_TRY(keep(before));
            unsaved_bytes_ = 0;
            saved_us_ = copy_.clock->steady_us();
        }
        return {};
    }

    Status copy_piece(Piece& piece, Worker& worker) {
        if (piece.zero) return copy_.to->zero(piece.offset, piece.length, true);
        worker.buffer.resize(piece.length);
        FS_TRY(copy_.from->read(piece.offset, worker.buffer));
        if (all_zero(worker.buffer))
            return copy_.blank ? Status() : copy_.to->zero(piece.offset, piece.length, true);
        FS_TRY(copy_.to->write(piece.offset, worker.buffer));
        piece.sum = sum_of(worker.summer, piece.offset, worker.buffer);
        piece.written = true;
        return {};
    }

    Status keep_sums(const std::vector<Piece>& pieces) {
        Bytes rows;
        ByteWriter out(rows);
        for (const Piece& piece : pieces) {
            if (!piece.written) continue;
            out.u64(piece.offset);
            out.u32(static_cast<uint32_t>(piece.length));
            out.u32(0);
            out.bytes(piece.sum);
            unsaved_bytes_ += piece.length;
            at_.written_bytes += piece.length;
        }
        if (rows.empty()) return {};
        FS_TRY(copy_.sums->write_at(kHeadBytes + at_.pieces * kRowBytes, rows));
        at_.pieces += rows.size() / kRowBytes;
        return {};
    }

    Status keep(const ImageCopyPosition& position) {
        copy_.position = position;
        return copy_.save ? copy_.save(position) : Status();
    }

    ImageCopy& copy_;
    Workers workers_;
    ImageCopyPosition at_;
    uint64_t planned_to_ = 0;
    uint64_t data_end_ = 0;  // of the last piece that is data; none overlaps the one before
    uint64_t unsaved_bytes_ = 0, before_ = 0;
    int64_t saved_us_ = 0;
};

class Verifier {
  public:
    Verifier(ImageCopy& copy, const SumKey& key) : copy_(copy), workers_(key), at_(copy.position) {}

    Status run() {
        int64_t saved_us = copy_.clock->steady_us();
        uint64_t read_bytes = 0;
        while (at_.verified_bytes < copy_.disk_bytes) {
            FS_ASSIGN(const std::vector<Piece> pieces, next_pieces());
            FirstError error;
            // A piece, and what lies between the one before and it.
            copy_.pool->run(pieces.size(), [&](size_t i) {
                if (error.failed()) return;
                const uint64_t from =
                    i == 0 ? at_.verified_bytes : pieces[i - 1].offset + pieces[i - 1].length;
                auto worker = workers_.take();
                error.keep(check(from, pieces[i], *worker));
                workers_.give_back(std::move(worker));
            });
            FS_TRY(error.status());
            at_.verified_bytes = pieces.back().offset + pieces.back().length;
            at_.verified_pieces += pieces.size() - (pieces.back().length == 0 ? 1 : 0);
            copy_.position = at_;
            for (const Piece& piece : pieces) read_bytes += piece.length;
            if (copy_.report) FS_TRY(copy_.report(at_.verified_bytes, read_bytes));
            if (copy_.save && copy_.clock->steady_us() - saved_us >= kSaveIntervalUs) {
                FS_TRY(copy_.save(at_));
                saved_us = copy_.clock->steady_us();
            }
        }
        return copy_.save ? copy_.save(at_) : Status();
    }

  private:
    // The next rows; behind the last one a piece without length at the disk's end.
    Result<std::vector<Piece>> next_pieces() {
        const uint64_t count = std::min(at_.pieces - at_.verified_pieces, kRowsAtOnce);
        Bytes rows(count * kRowBytes);
        FS_ASSIGN(const size_t n,
                  copy_.sums->read_at(kHeadBytes + at_.verified_pieces * kRowBytes, rows));
        std::vector<Piece> pieces;
        uint64_t end = at_.verified_bytes;
        for (uint64_t i = 0; i < n / kRowBytes; ++i) {
            const uint8_t* row = &rows[i * kRowBytes];
            Piece piece{load_u64(row), load_u32(row + 8)};
            std::copy_n(row + 16, piece.sum.size(), piece.sum.begin());
            if (piece.offset < end || piece.length == 0 || piece.length > kPieceBytes ||
                piece.offset > copy_.disk_bytes || piece.length > copy_.disk_bytes - piece.offset)
                break;
            end = piece.offset + piece.length;
            pieces.push_back(piece);
        }
        if (pieces.size() != count)
            return fail(Code::kCorrupt, "the file of sums beside the image is damaged",
                        "start the job again");
        if (count == at_.pieces - at_.verified_pieces) pieces.push_back({copy_.disk_bytes, 0});
        return pieces;
    }

    Status check(uint64_t from, const Piece& piece, Worker& worker) {
        FS_TRY(check_zeroes(from, piece.offset, worker));
        if (piece.length == 0) return {};
        worker.buffer.resize(piece.length);
        FS_TRY(copy_.to->read(piece.offset, worker.buffer));
        if (sum_of(worker.summer, piece.offset, worker.buffer) != piece.sum)
            return differs(piece.offset, piece.offset + piece.length);
        return {};
    }

    Status check_zeroes(uint64_t from, uint64_t to, Worker& worker) {
        while (from < to) {
            FS_ASSIGN(const auto extents,
                      copy_.to->extents(from, std::min(kExtentsBytes, to - from)));
            for (const BlockExtent& extent : extents) {
                const uint64_t end = std::min(extent.offset_bytes + extent.length_bytes, to);
                while (!extent.zero && from < end) {
                    worker.buffer.resize(std::min(kPieceBytes, end - from));
                    FS_TRY(copy_.to->read(from, worker.buffer));
                    if (!all_zero(worker.buffer)) return differs(from, from + worker.buffer.size());
                    from += worker.buffer.size();
                }
                from = std::max(from, end);
            }
        }
        return {};
    }

    static tl::unexpected<Error> differs(uint64_t from, uint64_t to) {
        return fail(Code::kCorrupt,
                    fmt::format("the image does not hold what was written to it, somewhere in the "
                                "bytes from {} to {}",
                                from, to),
                    "its disk, or the way there, is damaged: write it elsewhere");
    }

    ImageCopy& copy_;
    Workers workers_;
    ImageCopyPosition at_;
};

}  // namespace

Status begin_sums(File& sums, Random& random) {
    Bytes head = to_bytes(as_bytes(kMagic));
    head.resize(kHeadBytes);
    random.fill(MutableByteView(head).subspan(kMagic.size()));
    FS_TRY(sums.truncate(0));
    return sums.write_at(0, head);
}

Status copy_image(ImageCopy& copy) {
    FS_ASSIGN(const SumKey key, read_key(*copy.sums));
    return Copier(copy, key).run();
}

Status verify_image(ImageCopy& copy) {
    FS_ASSIGN(const SumKey key, read_key(*copy.sums));
    return Verifier(copy, key).run();
}

}  // namespace farshore
