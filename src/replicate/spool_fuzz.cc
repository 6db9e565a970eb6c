// A spool whose files hold anything: refused by name, or opened, and then what it recovered can be
// read and it goes on.
#include "codec/crc32c.h"
#include "record/record.h"
#include "replicate/spool.h"
#include "sim/crash_images.h"

using namespace farshore;

namespace {

// Two files, cut where the input says; with a right header where it asks for one.
void put(CrashFiles& files, const ItemId& item, uint64_t name, bool with_header, ByteView records) {
    Bytes content;
    if (with_header) {
        ByteWriter out(content);
        out.bytes(ByteView(reinterpret_cast<const uint8_t*>("FSPOOL01"), 8));
        out.u16(1);
        out.u16(0);
        out.bytes(item.view());
        out.u64(name);
        content.resize(60);
        out.u32(crc32c(content));
    }
    content.insert(content.end(), records.begin(), records.end());
    char path[64];
    std::snprintf(path, sizeof path, "spool/%016llx.spool", static_cast<unsigned long long>(name));
    auto file = files.open(path, OpenMode::kCreate);
    FS_CHECK(file && (*file)->write_at(0, content));
}

// Real ones, from `first` on, of which the input changes bytes: place and value each.
Bytes changed_records(uint64_t first, size_t count, ByteView changes) {
    Bytes out;
    for (uint64_t s = first; s < first + count; ++s) {
        RecordHeader header;
        header.kind = s % 3 == 0 ? RecordKind::kTime : RecordKind::kWrite;
        header.sequence = {s};
        header.time = {static_cast<int64_t>(s * 1000)};
        append_record(out, header, s % 3 == 0 ? Bytes() : Bytes(40, static_cast<uint8_t>(s)));
    }
    for (size_t i = 0; i + 2 <= changes.size() && !out.empty(); i += 2)
        out[changes[i] * size_t{7} % out.size()] ^= changes[i + 1];
    return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 4) return 0;
    const ItemId item{};
    CrashFiles files;
    FS_CHECK(files.make_directories("spool"));
    const ByteView rest(data + 4, size - 4);
    const size_t cut = std::min<size_t>(rest.size(), data[1] * 16);
    const bool real = (data[0] & 16) != 0;
    const auto records = [&](uint64_t first, ByteView input) {
        return real ? changed_records(first, data[3] % 16, input)
                    : Bytes(input.begin(), input.end());
    };
    put(files, item, 1, (data[0] & 1) != 0, records(1, rest.first(cut)));
    if ((data[0] & 2) != 0)
        put(files, item, 1 + data[2], (data[0] & 4) != 0, records(1 + data[2], rest.subspan(cut)));
    auto spool = Spool::open(files, "spool", item, 64 << 10, (data[0] & 8) != 0);
    if (!spool) return 0;
    uint64_t next = 1;
    for (const SpoolRange& range : (*spool)->recovered()) {
        auto records = (*spool)->read(range);
        FS_CHECK(records);
        RecordCursor cursor(*records, true);
        while (!cursor.done()) FS_CHECK(cursor.next());
        next = range.last.v + 1;
    }
    if (next == 0) return 0;
    Bytes more;
    RecordHeader header;
    header.kind = RecordKind::kTime;
    header.sequence = {next};
    append_record(more, header, {});
    SpoolRange range;
    if ((*spool)->append(more, range)) (void)(*spool)->sync();
    (void)(*spool)->trim({next});
    return 0;
}
