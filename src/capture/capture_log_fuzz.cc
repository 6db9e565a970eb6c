// Shared memory and spill as somebody else left them: whatever is in them, both sides end with an
// error or with records that were checked.
#include "capture/capture_log.h"
#include "capture/capture_test_world.h"

using namespace farshore;
using namespace farshore::capture_test;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size < 2) return 0;
    const uint8_t mode = data[0];
    ByteView input(data + 1, size - 1);
    LogGeometry geometry;
    geometry.ring_bytes = kMinRingBytes;
    geometry.spill_bytes = (mode & 2) != 0 ? 64u << 10 : 0;
    geometry.disk_bytes = {1u << 20, 777};
    TestMemory memory(geometry);
    LogMemory view = memory.memory();
    if ((mode & 1) != 0) {
        // A good log whose changing parts are the input's.
        FS_CHECK(LogHeader::format(view, geometry, {1}).has_value());
        const auto take = [&](MutableByteView to) {
            const size_t n = std::min(to.size(), input.size());
            std::copy_n(input.begin(), n, to.begin());
            input = input.subspan(n);
        };
        take(view.control.subspan(4096, 8 + 64));
        take(view.control.subspan(5120, 8 + 32));
        take(view.control.subspan(8192, 256));
        take(view.control.subspan(12288, 64));
        take(view.control.subspan(16384, 128));
        if ((mode & 4) != 0) {
            // Good records, so that readers come further.
            Bytes records;
            for (uint64_t i = 1; i < 20; ++i) {
                RecordHeader header;
                header.sequence = {i};
                append_record(records, header, input.first(std::min<size_t>(input.size(), 100)));
            }
            std::copy(records.begin(), records.end(), view.ring.begin());
        } else {
            take(view.ring);
        }
    } else {
        std::copy_n(input.begin(), std::min(input.size(), view.control.size()),
                    view.control.begin());
    }
    TestFiles files;
    files.set("spill", to_bytes(input));
    auto spill = files.open("spill", OpenMode::kReadWrite);
    auto header = LogHeader::open(view);
    if (!header) return 0;
    {
        CaptureConsumer consumer(*header, spill->get(), nullptr);
        for (int i = 0; i < 100; ++i) {
            auto batch = consumer.peek(4096);
            if (!batch || batch->empty()) break;
            RecordCursor cursor(batch->records, true);
            while (!cursor.done() && cursor.next()) {
            }
            consumer.advance();
            if (i % 3 == 0) consumer.release(batch->last);
        }
        (void)consumer.seek({consumer.released().v + 5});
        (void)consumer.peek(100);
        (void)consumer.at_end();
    }
    StillClock clock;
    header = LogHeader::open(view);
    if (!header) return 0;
    CaptureProducer producer(*header, {&clock, spill->get(), nullptr, {}, nullptr});
    AppendRequest request;
    request.length_bytes = 100;
    const Bytes payload(100);
    request.payload = payload;
    for (int i = 0; i < 10; ++i) producer.append(request);
    for (const InFlight& left : producer.leftovers()) producer.end(left.slot);
    return 0;
}
