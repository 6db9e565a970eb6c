#include "plan/measured.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

namespace farshore {
namespace {

constexpr std::string_view kFormat = "farshore-measured-1";
constexpr size_t kMaxText = 4096;
constexpr int64_t kMaxIntervalUs = 3'600'000'000;
using Json = nlohmann::json;

tl::unexpected<Error> wrong(std::string_view field, std::string_view why) {
    return fail(Code::kMalformed, fmt::format("the measured file: '{}' {}", field, why),
                "`farshore plan measure` writes such files");
}

Result<std::string> text_of(const Json& json, const char* field) {
    const auto found = json.find(field);
    if (found == json.end() || !found->is_string()) return wrong(field, "must be a text");
    const auto& text = found->get_ref<const std::string&>();
    if (text.size() > kMaxText) return wrong(field, "is too long");
    return text;
}

Result<uint64_t> number_of(const Json& value, std::string_view field, uint64_t least,
                           uint64_t most) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() < least ||
        value.get<uint64_t>() > most)
        return wrong(field, fmt::format("must be a whole number from {} to {}", least, most));
    return value.get<uint64_t>();
}

Result<uint64_t> decimal(std::string_view text, const char* what) {
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size())
        return fail(Code::kMalformed, fmt::format("the kernel's {} is no number", what));
    return value;
}

constexpr uint64_t kSector = 512;

}  // namespace

std::string format_measured(const Measured& measured) {
    Json disks = Json::array();
    for (const MeasuredDisk& disk : measured.disks)
        disks.push_back({{"path", disk.path}, {"size_bytes", disk.size_bytes}});
    return Json{{"format", kFormat},
                {"host", measured.host},
                {"started", to_rfc3339(measured.started)},
                {"interval_us", measured.churn.interval_us},
                {"disks", std::move(disks)},
                {"written_bytes", measured.churn.bytes}}
               .dump(-1, ' ', false, Json::error_handler_t::replace) +
           "\n";
}

Result<Measured> parse_measured(std::string_view text) {
    if (text.size() > kMaxMeasuredBytes)
        return fail(Code::kTooLarge,
                    fmt::format("the measured file has {} bytes, at most {} are read", text.size(),
                                kMaxMeasuredBytes));
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object())
        return fail(Code::kMalformed, "the measured file is no JSON object",
                    "`farshore plan measure` writes such files");
    FS_ASSIGN(const std::string format, text_of(json, "format"));
    if (format != kFormat) {
        if (format.starts_with("farshore-measured-"))
            return fail(Code::kNewerVersion, "a newer Farshore wrote the measured file",
                        "plan with that one");
        return wrong("format", fmt::format("must be {}", kFormat));
    }
    Measured measured;
    FS_ASSIGN(measured.host, text_of(json, "host"));
    FS_ASSIGN(const std::string started, text_of(json, "started"));
    const auto time = from_rfc3339(started);
    if (!time) return wrong("started", "must be an RFC 3339 time");
    measured.started = *time;
    FS_ASSIGN(const uint64_t interval_us,
              number_of(json.value("interval_us", Json()), "interval_us", 1000, kMaxIntervalUs));
    measured.churn.interval_us = static_cast<int64_t>(interval_us);
    const Json disks = json.value("disks", Json());
    if (!disks.is_array() || disks.empty() || disks.size() > kMaxMeasuredDisks)
        return wrong("disks", fmt::format("must be a list of 1 to {}", kMaxMeasuredDisks));
    for (const Json& one : disks) {
        if (!one.is_object()) return wrong("disks", "must be a list of objects");
        MeasuredDisk disk;
        FS_ASSIGN(disk.path, text_of(one, "path"));
        FS_ASSIGN(disk.size_bytes,
                  number_of(one.value("size_bytes", Json()), "size_bytes", 0, UINT64_MAX / 4096));
        measured.disks.push_back(std::move(disk));
    }
    const Json written = json.value("written_bytes", Json());
    if (!written.is_array() || written.empty() || written.size() > kMaxPlanSamples)
        return wrong("written_bytes", fmt::format("must be a list of 1 to {}", kMaxPlanSamples));
    measured.churn.bytes.reserve(written.size());
    const uint64_t most = std::min(kMaxSlotBytes, interval_us * kMaxBytesPerUs);
    for (const Json& slot : written) {
        FS_ASSIGN(const uint64_t bytes, number_of(slot, "written_bytes", 0, most));
        measured.churn.bytes.push_back(bytes);
    }
    return measured;
}

Result<uint64_t> parse_written(std::string_view stat) {
    constexpr int kWrittenSectors = 7;
    std::string_view word;
    for (int i = 0; i < kWrittenSectors; ++i) {
        const size_t begin = stat.find_first_not_of(' ');
        if (begin == std::string_view::npos) return decimal("", "block statistics");
        stat.remove_prefix(begin);
        word = stat.substr(0, stat.find_first_of(" \n"));
        stat.remove_prefix(word.size());
    }
    FS_ASSIGN(const uint64_t sectors, decimal(word, "block statistics"));
    if (sectors > UINT64_MAX / kSector)
        return fail(Code::kMalformed, "the kernel's block statistics are out of range");
    return sectors * kSector;
}

Result<uint64_t> parse_disk_size(std::string_view size) {
    FS_ASSIGN(const uint64_t sectors, decimal(size, "size of a disk"));
    if (sectors > UINT64_MAX / kSector)
        return fail(Code::kMalformed, "the kernel's size of a disk is out of range");
    return sectors * kSector;
}

PlanInput plan_input(const Measured& measured, double stored_per_written, int64_t window_us,
                     RetentionGrid keep) {
    PlannedItem item;
    item.name = measured.host;
    item.window_us = window_us;
    item.keep = std::move(keep);
    for (const MeasuredDisk& disk : measured.disks) item.seen.live_bytes += disk.size_bytes;
    item.seen.written_bytes = measured.churn.total();
    item.seen.written_us = measured.churn.seen_us();
    item.seen.stored_per_written = stored_per_written;
    return {{measured.churn}, {std::move(item)}};
}

}  // namespace farshore
