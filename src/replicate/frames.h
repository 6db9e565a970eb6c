// The frames between an agent and its appliance. Bytes: docs/format/frames.md.
//
// A frame is a type byte and a body. The first frame of a connection says what it is for: HELLO
// opens the log of one item, SYNC an agent's control conversation, COMPARE one of questions about
// replicas, RETURN one of a source that is written back, BARRIER REPORT one of shared points, ENROL
// asks for a certificate.
#pragma once

#include <string>

#include "base/bytes.h"
#include "base/error.h"
#include "base/types.h"
#include "record/compare.h"
#include "record/return_question.h"
#include "replicate/shared_point.h"

namespace farshore {

inline constexpr uint16_t kProtocolVersion = 1;

enum class FrameType : uint8_t {
    kHello = 1,
    kWelcome = 2,
    kData = 3,
    kAck = 4,
    kError = 5,
    kSync = 6,
    kSyncReply = 7,
    kEnrol = 8,
    kEnrolled = 9,
    kCompare = 10,
    kCompared = 11,
    kReturn = 12,
    kReturned = 13,
    kBarrier = 14,        // appliance: what members of the agent's are to do
    kBarrierReport = 15,  // agent: what they did; the first one only says that it is there
};

// Agent: this is the item's log.
struct HelloFrame {
    uint16_t version = kProtocolVersion;
    ItemId item;
    PartyId instance;         // drawn anew by every agent process
    Sequence first_unstored;  // one past what it was told is stored, by whomever
};
// Appliance: go on from here.
struct WelcomeFrame {
    Sequence next;
    Sequence stored;
    uint64_t window_bytes = 0;
};
// Appliance: up to `received` is on its disk, up to `stored` in the object store and registered.
// The sender may have `window_bytes` in flight beyond `received`.
struct AckFrame {
    Sequence received;
    Sequence stored;
    uint64_t window_bytes = 0;
};
struct SyncFrame {
    uint64_t request = 0;
    std::string document;  // JSON
};
// Agent: what has the replica of this item there? Several may be under way on one connection, which
// carries nothing else; answers come in any order.
struct CompareFrame {
    uint64_t request = 0;
    ItemId item;
    CompareQuestion question;
};
struct ComparedFrame {
    uint64_t request = 0;
    CompareAnswer answer;
};
// Agent: what have the disks to become? As COMPARE; for the agent alone that an item returns to.
struct ReturnFrame {
    uint64_t request = 0;
    ItemId item;
    ReturnQuestion question;
};
struct ReturnedFrame {
    uint64_t request = 0;
    ReturnAnswer answer;
};
struct EnrolFrame {
    std::string token;
    std::string request_pem;
};
struct EnrolledFrame {
    std::string chain_pem;
};

Bytes encode(const HelloFrame& frame);
Bytes encode(const WelcomeFrame& frame);
Bytes encode(const AckFrame& frame);
Bytes encode(const CompareFrame& frame);
Bytes encode(const ComparedFrame& frame);
Bytes encode(const ReturnFrame& frame);
Bytes encode(const ReturnedFrame& frame);
Bytes encode(const EnrolFrame& frame);
Bytes encode(const EnrolledFrame& frame);
Bytes encode_sync(const SyncFrame& frame);
Bytes encode_sync_reply(const SyncFrame& frame);
Bytes encode_barrier(const BarrierOrder& order);
Bytes encode_barrier_report(const BarrierReport& report);
Bytes encode_error(const Error& error);
// A DATA frame around encoded records.
Bytes encode_data(ByteView records);

struct FrameView {
    FrameType type;
    ByteView body;
};
// kMalformed when empty; kNewerVersion for an unknown type.
Result<FrameView> decode_frame(ByteView frame);
Result<HelloFrame> decode_hello(ByteView body);
Result<WelcomeFrame> decode_welcome(ByteView body);
Result<AckFrame> decode_ack(ByteView body);
Result<SyncFrame> decode_sync(ByteView body);
// kMalformed for a question or an answer out of its ranges (record/compare.h, return_question.h).
Result<CompareFrame> decode_compare(ByteView body);
Result<ComparedFrame> decode_compared(ByteView body);
Result<ReturnFrame> decode_return(ByteView body);
Result<ReturnedFrame> decode_returned(ByteView body);
// shared_point.h says what is refused.
Result<BarrierOrder> decode_barrier(ByteView body);
Result<BarrierReport> decode_barrier_report(ByteView body);
Result<EnrolFrame> decode_enrol(ByteView body);
Result<EnrolledFrame> decode_enrolled(ByteView body);
// The error that the peer sent; a frame that is itself malformed gives that error instead.
Error decode_error(ByteView body);

}  // namespace farshore
