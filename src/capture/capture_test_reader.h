// Reading a log as the agent does, for the tests of this folder and of tap.
#pragma once

#include "capture/capture_log.h"
#include "record/record.h"

namespace farshore::capture_test {

// Hands each record of the log's next `max_bytes` to `each` and moves past them; nothing is
// released. The sequence of the last one, or why the log cannot be read: then nothing has moved.
template <typename Each>
Result<Sequence> take_records(CaptureConsumer& log, size_t max_bytes, Each each) {
    FS_ASSIGN(const auto batch, log.peek(max_bytes));
    RecordCursor cursor(batch.records, true);
    while (!cursor.done()) {
        FS_ASSIGN(const RecordView record, cursor.next());
        each(record);
    }
    log.advance();
    return batch.last;
}

}  // namespace farshore::capture_test
