#include "replica/replica_compare.h"

#include <algorithm>

namespace farshore {
namespace {

constexpr uint64_t kReadBytes = 1u << 20;

bool is_damage(const Error& error) {
    switch (error.code()) {
        case Code::kCorrupt:
        case Code::kTruncated:
        case Code::kNotFound:
        case Code::kWrongKey:
        case Code::kMalformed:
            return true;
        default:
            return false;
    }
}

class Summing {
  public:
    Summing(ReplicaDisk& disk, const CompareQuestion& question)
        : disk_(disk), question_(question), summer_(question.key) {
        answer_.sums.assign(question.blocks(), kZeroSum);
    }

    Status data(uint64_t from, uint64_t to) {
        for (uint64_t at = from; at < to; at += kReadBytes) {
            const uint64_t length = std::min(kReadBytes, to - at);
            buffer_.resize(length);
            const Status read = disk_.read(at, buffer_);
            if (read) {
                for (uint64_t block = 0; block < length; block += kSumBlockBytes)
                    add(at + block, std::min(kSumBlockBytes, length - block), block);
                continue;
            }
            if (!is_damage(read.error())) return read;
            // Which of its blocks it is.
            for (uint64_t block = 0; block < length; block += kSumBlockBytes) {
                const uint64_t n = std::min(kSumBlockBytes, length - block);
                const Status one =
                    disk_.read(at + block, MutableByteView(buffer_).subspan(block, n));
                if (one) {
                    add(at + block, n, block);
                } else if (is_damage(one.error())) {
                    answer_.sums[index(at + block)] = kUnreadableSum;
                    ++answer_.unreadable;
                } else {
                    return one;
                }
            }
        }
        return {};
    }

    CompareAnswer take() {
        if (answer_.unreadable == 0 &&
            summer_.run(question_.disk, question_.offset_bytes, answer_.sums) == question_.sum) {
            answer_.verdict = CompareVerdict::kEqual;
            answer_.sums.clear();
        } else {
            answer_.verdict = CompareVerdict::kSums;
        }
        return std::move(answer_);
    }

  private:
    size_t index(uint64_t at) const { return (at - question_.offset_bytes) / kSumBlockBytes; }
    void add(uint64_t at, uint64_t length, uint64_t in_buffer) {
        answer_.sums[index(at)] =
            summer_.block(question_.disk, at, ByteView(buffer_).subspan(in_buffer, length));
    }

    ReplicaDisk& disk_;
    const CompareQuestion& question_;
    BlockSummer summer_;
    CompareAnswer answer_;
    Bytes buffer_;
};

// From the extents alone: what has to be read for it is asked again, in shorter runs.
Result<CompareAnswer> compare_zeroes(ReplicaDisk& disk, const CompareQuestion& question) {
    CompareAnswer answer;
    answer.verdict = CompareVerdict::kEqual;
    for (uint64_t at = 0; at < question.length_bytes; at += question.block_bytes()) {
        const uint64_t length = std::min(question.block_bytes(), question.length_bytes - at);
        auto extents = disk.extents(question.offset_bytes + at, length);
        if (!extents && !is_damage(extents.error())) return fail(extents.error());
        const bool zero =
            extents && std::ranges::all_of(*extents, [](const auto& e) { return e.zero; });
        answer.sums.push_back(zero ? kZeroSum : kUnreadableSum);
        if (!zero) answer.verdict = CompareVerdict::kSums;
    }
    if (answer.verdict == CompareVerdict::kEqual) answer.sums.clear();
    return answer;
}

}  // namespace

Result<CompareAnswer> compare_replica(ReplicaReader& replica, const CompareQuestion& question) {
    FS_TRY(check_question(question));
    const uint64_t end = question.offset_bytes + question.length_bytes;
    auto disk = replica.disk(question.disk);
    if (!disk && disk.error().code() != Code::kNotFound) return fail(disk.error());
    if (!disk || (*disk)->size_bytes() < end) {
        CompareAnswer answer;
        answer.verdict = CompareVerdict::kSums;
        answer.sums.assign(question.blocks(), kUnreadableSum);
        return answer;
    }
    if (question.long_zeroes()) return compare_zeroes(**disk, question);
    Summing summing(**disk, question);
    auto extents = (*disk)->extents(question.offset_bytes, question.length_bytes);
    if (!extents) {
        if (!is_damage(extents.error())) return fail(extents.error());
        FS_TRY(summing.data(question.offset_bytes, end));
        return summing.take();
    }
    // Whole blocks around what is not known to be zeroes, each once.
    uint64_t done = question.offset_bytes;
    for (const ReplicaExtent& extent : *extents) {
        if (extent.zero) continue;
        const uint64_t extent_end = extent.offset_bytes + extent.length_bytes;
        const uint64_t from = std::max(done, extent.offset_bytes / kSumBlockBytes * kSumBlockBytes);
        const uint64_t to =
            std::min(end, (extent_end + kSumBlockBytes - 1) / kSumBlockBytes * kSumBlockBytes);
        if (from >= to) continue;
        FS_TRY(summing.data(from, to));
        done = to;
    }
    return summing.take();
}

}  // namespace farshore
