#include <fmt/core.h>

#include "compute/nbd_front_wire.h"

// However the same bytes are cut into pieces, the same is said; but for what follows STARTTLS,
// which is refused when it comes in the same piece. Nothing is said that is longer than its cause.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using farshore::GateTalk;
    using farshore::NbdFrontWire;
    if (size == 0) return 0;
    const farshore::ByteView bytes(data + 1, size - 1);
    NbdFrontWire whole;
    const auto at_once = whole.hear(bytes);
    if (at_once.send.size() > 20 * farshore::kMaxClearOptions) __builtin_trap();

    NbdFrontWire cut;
    farshore::Bytes said;
    auto next = GateTalk::Next::kMore;
    size_t at = 0;
    const size_t step = 1 + data[0] % 32;
    while (at < bytes.size() && next == GateTalk::Next::kMore) {
        const size_t n = std::min(step, bytes.size() - at);
        const auto answer = cut.hear(bytes.subspan(at, n));
        said.insert(said.end(), answer.send.begin(), answer.send.end());
        next = answer.next;
        at += n;
    }
    if (next == GateTalk::Next::kStartTls && at < bytes.size()) {
        if (at_once.next != GateTalk::Next::kClose) __builtin_trap();
        return 0;
    }
    if (next != at_once.next) __builtin_trap();
    if (next != GateTalk::Next::kClose && said != at_once.send) __builtin_trap();
    if (next == GateTalk::Next::kStartTls && cut.client_flags() != whole.client_flags())
        __builtin_trap();
    (void)whole.answer_target(bytes);
    return 0;
}
