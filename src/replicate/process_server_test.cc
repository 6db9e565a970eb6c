#include "replicate/process_server.h"

#include <filesystem>
#include <fstream>

#include "replicate/process_server_test_site.h"

namespace farshore::process_server_test {
namespace {

// Broken if what was acknowledged as stored were not in registered segments, in order.
TEST_F(ProcessServerTest, StoresWhatItReceivesInOrder) {
    auto wire = connect("agent-1");
    EXPECT_EQ(welcome(*wire).next.v, 1u);
    wire->handlers.on_frame(encode_data(records(1, 100)));
    wire->handlers.on_frame(encode_data(records(101, 50)));
    time_.run();
    EXPECT_EQ(last_ack(*wire).received.v, 150u);
    time_.advance(2'000'000);
    EXPECT_EQ(last_ack(*wire).stored.v, 150u);
    auto all = stored_sequences();
    ASSERT_EQ(all.size(), 150u);
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], i + 1);
}

// Broken if a record that was sent twice were stored twice, or a hole were taken.
TEST_F(ProcessServerTest, DropsDuplicatesAndRefusesHoles) {
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 10)));
    wire->handlers.on_frame(encode_data(records(5, 10)));
    wire->handlers.on_frame(encode_data(records(1, 3)));
    time_.advance(2'000'000);
    EXPECT_EQ(stored_sequences().size(), 14u);
    EXPECT_FALSE(error(*wire));
    wire->handlers.on_frame(encode_data(records(16, 1)));
    time_.run();
    ASSERT_TRUE(error(*wire));
    EXPECT_EQ(error(*wire)->code(), Code::kSequenceHole);
    // A jump in front of a GAP is how a lost order is said.
    wire = connect("agent-1");
    EXPECT_EQ(welcome(*wire).next.v, 15u);
    Bytes gap = records(40, 1, RecordKind::kGap);
    wire->handlers.on_frame(encode_data(gap));
    time_.advance(2'000'000);
    EXPECT_EQ(last_ack(*wire).stored.v, 40u);
}

// Broken if a damaged payload were passed on: what is read is verified.
TEST_F(ProcessServerTest, RefusesDamagedRecords) {
    auto wire = connect("agent-1");
    Bytes damaged = records(1, 2);
    damaged[kRecordHeaderBytes + 5] ^= 1;
    wire->handlers.on_frame(encode_data(damaged));
    time_.advance(2'000'000);
    ASSERT_TRUE(error(*wire));
    EXPECT_EQ(error(*wire)->code(), Code::kCorrupt);
    EXPECT_TRUE(vault_.segments.empty());
}

// Broken if a restarted appliance forgot what it had acknowledged as received.
TEST_F(ProcessServerTest, GoesOnFromItsSpoolAfterAKill) {
    vault_.failing = 1'000'000;
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 200)));
    wire->handlers.on_frame(encode_data(records(201, 30)));
    time_.advance(100'000);
    EXPECT_EQ(last_ack(*wire).received.v, 230u);
    EXPECT_EQ(last_ack(*wire).stored.v, 0u);
    time_.run();
    vault_.failing = 0;
    boot();
    time_.advance(10'000'000);
    auto all = stored_sequences();
    ASSERT_EQ(all.size(), 230u);
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], i + 1);
    EXPECT_EQ(welcome(*connect("agent-1")).next.v, 231u);
}

// Broken if a GAP that was on its way while records were left out for lack of a lease were taken to
// say that the source had left them out: they would be in no segment, and nobody would know.
TEST_F(ProcessServerTest, AGapDoesNotHideWhatWasLeftOut) {
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 10)));
    time_.run();
    vault_.epoch += 5;
    time_.advance(1'000'000);  // fenced; the next lease is not there yet
    wire->handlers.on_frame(encode_data(records(11, 2)));
    time_.advance(200'000);
    wire->handlers.on_frame(encode_data(records(20, 1, RecordKind::kGap)));
    time_.advance(2'000'000);
    ASSERT_TRUE(error(*wire));
    EXPECT_EQ(error(*wire)->code(), Code::kUnavailable);
    EXPECT_EQ(welcome(*connect("agent-1")).next.v, 11u);
    EXPECT_EQ(stored_sequences().size(), 10u);
}

// Broken if a full spool waited for ever: what is stored can't be freed while an idle mark in the
// same file is not, and nothing comes in that would take the mark along.
TEST_F(ProcessServerTest, AnIdleMarkDoesNotKeepASpoolFull) {
    tune_ = [](ProcessServerOptions& options) {
        options.spool_bytes = 64 << 10;
        options.segment_payload_bytes = 16 << 10;
    };
    boot();
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 20)));
    wire->handlers.on_frame(encode_data(records(21, 1, RecordKind::kTime)));
    time_.advance(5'000'000);
    EXPECT_EQ(last_ack(*wire).stored.v, 21u);
    EXPECT_GT(last_ack(*wire).window_bytes, 0u);
}

// Broken if a fenced appliance lost what it holds, or stored it out of order under its next lease.
TEST_F(ProcessServerTest, SealsAgainUnderANewLeaseWhenFenced) {
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 100)));
    time_.run();
    vault_.epoch += 5;  // somebody else got a lease
    time_.advance(1'000'000);
    wire->handlers.on_frame(encode_data(records(101, 100)));
    time_.advance(20'000'000);
    auto all = stored_sequences();
    ASSERT_EQ(all.size(), 200u);
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], i + 1);
}

// Broken if what a sync adds while the spool turns out to be damaged were stored behind what is
// lost: a GAP at its begin would be taken to say that the source had left that out.
TEST_F(ProcessServerTest, DamageInTheSpoolTakesWhatIsOnItsWayWithIt) {
    tune_ = [](ProcessServerOptions& options) {
        options.build_queue_bytes = 0;
        options.spool_file_bytes = 8 << 20;
    };
    boot();
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 10)));
    time_.advance(2'000'000);
    ASSERT_EQ(last_ack(*wire).stored.v, 10u);
    // Enough for a segment; it is damaged when it is durable, and the GAP is being synced when that
    // is seen.
    wire->handlers.on_frame(encode_data(records(11, 80)));
    time_.post([&] {
        for (const auto& file : std::filesystem::recursive_directory_iterator(directory_.path())) {
            if (!file.is_regular_file() || file.file_size() < (300u << 10)) continue;
            std::fstream bytes(file.path(), std::ios::in | std::ios::out | std::ios::binary);
            bytes.seekp(static_cast<std::streamoff>(file.file_size()) - 4096 * 40);
            bytes << std::string(8192, 'x');
        }
    });
    wire->handlers.on_frame(encode_data(records(95, 1, RecordKind::kGap)));
    time_.run();
    EXPECT_TRUE(error(*wire)) << "it is to come again";
    time_.advance(5'000'000);
    EXPECT_EQ(stored_sequences().size(), 10u);
    auto again = connect("agent-1");
    EXPECT_EQ(welcome(*again).next.v, 11u);
    EXPECT_EQ(welcome(*again).stored.v, 10u);
    again->handlers.on_frame(encode_data(records(11, 80)));
    time_.advance(5'000'000);
    EXPECT_EQ(stored_sequences().size(), 90u);
}

// Broken if an appliance that gets an item back, sooner than it has heard that it had lost it,
// asked for what the agent has let go of since: that is a gap, and everything is compared.
TEST_F(ProcessServerTest, AnItemThatComesBackIsAskedForWhatIsNotStored) {
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 10)));
    time_.advance(2'000'000);
    ASSERT_EQ(last_ack(*wire).stored.v, 10u);
    // Another one has the item, and stores up to 20.
    wire->handlers.on_closed(Error(Code::kConnectionLost, "it goes to another one"));
    time_.run();
    SegmentRegistration others = vault_.segments.back();
    others.number = {2};
    others.epoch = {++vault_.epoch};
    others.first = {11};
    others.last = {20};
    vault_.segments.push_back(others);
    const uint64_t epoch = vault_.epoch;
    // What it says first is that it has to drop what it has; the agent comes again.
    for (int i = 0; i < 2; ++i) {
        wire = connect("agent-1", 1, 21);
        time_.advance(1'000'000);
    }
    EXPECT_EQ(welcome(*wire).next.v, 21u);
    EXPECT_EQ(welcome(*wire).stored.v, 20u);
    EXPECT_EQ(vault_.epoch, epoch + 1);
    wire->handlers.on_frame(encode_data(records(21, 10)));
    time_.advance(2'000'000);
    EXPECT_EQ(last_ack(*wire).stored.v, 30u);
    // One that it knows as well as the agent does is not asked for.
    wire = connect("agent-1", 1, 31);
    EXPECT_EQ(welcome(*wire).next.v, 31u);
    EXPECT_EQ(vault_.epoch, epoch + 1);
}

// Broken if an appliance went on to say what a vault that was rebuilt since does not know: no
// sender would take its word, or know that the recovery site has less.
TEST_F(ProcessServerTest, AVaultThatForgotIsBelieved) {
    auto wire = connect("agent-1");
    for (uint64_t first : {1, 11}) {
        wire->handlers.on_frame(encode_data(records(first, 10)));
        time_.advance(2'000'000);
    }
    ASSERT_EQ(last_ack(*wire).stored.v, 20u);
    ASSERT_EQ(vault_.segments.size(), 2u);
    vault_.segments.pop_back();
    vault_.epoch += 5;
    wire->handlers.on_frame(encode_data(records(21, 1)));
    time_.advance(5'000'000);
    auto again = connect("agent-1");
    EXPECT_EQ(welcome(*again).next.v, 11u);
    EXPECT_EQ(welcome(*again).stored.v, 10u);
    again->handlers.on_frame(encode_data(records(30, 1, RecordKind::kGap)));
    time_.advance(5'000'000);
    EXPECT_EQ(last_ack(*again).stored.v, 30u);
}

// Broken if two appliances that have an item's records took its lease from each other for ever,
// each before the other one had stored anything.
TEST_F(ProcessServerTest, TwoThatFenceEachOtherStoreInTheEnd) {
    // So little that it waits for more.
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 20)));
    time_.advance(kSegmentMaxAgeUs / 2);
    const auto first = std::move(server_);
    tune_ = [&](ProcessServerOptions& options) {
        options.name = "appliance-2";
        options.spool_directory = directory_.path() + "/other";
    };
    boot();
    auto other = connect("agent-1");
    other->handlers.on_frame(encode_data(records(1, 20)));
    time_.run();
    ASSERT_EQ(last_ack(*other).received.v, 20u);
    ASSERT_TRUE(vault_.segments.empty());
    time_.advance(60'000'000);
    EXPECT_EQ(stored_sequences().size(), 20u);
    EXPECT_EQ(last_ack(*wire).stored.v, 20u);
    EXPECT_EQ(last_ack(*other).stored.v, 20u);
}

// Broken if the store or vault being away lost data, or stopped the source's acknowledgements.
TEST_F(ProcessServerTest, WaitsForAVaultThatIsAway) {
    vault_.failing = 5;
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 100)));
    time_.run();
    EXPECT_EQ(last_ack(*wire).received.v, 100u);
    time_.advance(60'000'000);
    EXPECT_EQ(last_ack(*wire).stored.v, 100u);
    EXPECT_EQ(stored_sequences().size(), 100u);
}

// Broken if two agents with one identity could mix their records into one log.
TEST_F(ProcessServerTest, RefusesASecondAgentWithOneIdentity) {
    auto first = connect("agent-1", 1);
    first->handlers.on_frame(encode_data(records(1, 1)));
    time_.run();
    auto second = connect("agent-1", 2);
    ASSERT_TRUE(error(*second));
    EXPECT_EQ(error(*second)->code(), Code::kDuplicateIdentity);
    EXPECT_FALSE(error(*first));
    // The same agent reconnecting takes over at once; another one when the first is silent.
    auto again = connect("agent-1", 1);
    EXPECT_FALSE(error(*again));
    time_.advance(kSessionSilenceUs + 1);
    auto other = connect("agent-1", 2);
    EXPECT_EQ(welcome(*other).next.v, 2u);
}

// Broken if any agent with a certificate could write into any machine's log.
TEST_F(ProcessServerTest, OnlyTheItemsOwnAgentMaySend) {
    vault_.owner = "agent-1";
    auto other = connect("agent-2");
    ASSERT_TRUE(error(*other));
    EXPECT_EQ(error(*other)->code(), Code::kForbidden);
    auto own = connect("agent-1", 3);
    EXPECT_FALSE(error(*own));
    EXPECT_EQ(welcome(*own).next.v, 1u);
}

// Broken if an idle source made objects for ever, or its RPO grew.
TEST_F(ProcessServerTest, IdleMarksReachTheVaultWithoutSegments) {
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 1)));
    time_.advance(2'000'000);
    const size_t segments = vault_.segments.size();
    for (uint64_t s = 2; s < 50; ++s) {
        wire->handlers.on_frame(encode_data(records(s, 1, RecordKind::kTime)));
        time_.advance(1'000'000);
    }
    EXPECT_EQ(vault_.segments.size(), segments);
    EXPECT_GE(vault_.marks, 40);
    EXPECT_EQ(vault_.marked.v, 1u);
    wire->handlers.on_frame(encode_data(records(50, 1)));
    time_.advance(2'000'000);
    EXPECT_EQ(stored_sequences().size(), 50u);
}

// Broken if a full spool were anything but a closed window.
TEST_F(ProcessServerTest, AFullSpoolClosesTheWindow) {
    tune_ = [](ProcessServerOptions& options) { options.spool_bytes = 400 << 10; };
    boot();
    vault_.failing = 20;
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(records(1, 100)));
    time_.run();
    EXPECT_EQ(last_ack(*wire).received.v, 100u);
    EXPECT_EQ(last_ack(*wire).window_bytes, 0u);
    time_.advance(200'000'000);
    EXPECT_GT(last_ack(*wire).window_bytes, 0u);
    EXPECT_EQ(last_ack(*wire).stored.v, 100u);
}

// Broken if a client that is no agent could do more than be refused.
TEST_F(ProcessServerTest, StrangersMayOnlyEnrol) {
    auto stranger = connect("");
    ASSERT_TRUE(error(*stranger));
    EXPECT_EQ(error(*stranger)->code(), Code::kUnauthenticated);
    auto wire = std::make_shared<Wire>();
    server_->accept(std::make_unique<WireConnection>(wire, ""));
    wire->handlers.on_frame(encode(EnrolFrame{"good", "request"}));
    time_.run();
    ASSERT_FALSE(wire->to_agent.empty());
    EXPECT_EQ(wire->to_agent[0][0], static_cast<uint8_t>(FrameType::kEnrolled));
    auto garbage = std::make_shared<Wire>();
    server_->accept(std::make_unique<WireConnection>(garbage, "agent-1"));
    garbage->handlers.on_frame(as_bytes("GET / HTTP/1.1"));
    time_.run();
    ASSERT_TRUE(error(*garbage));
    EXPECT_EQ(error(*garbage)->code(), Code::kNewerVersion);
}

// Broken if whoever reaches the port could take its connections from the agents, by coming often or
// by staying.
TEST_F(ProcessServerTest, StrangersDoNotStay) {
    std::vector<std::shared_ptr<Wire>> strangers;
    for (size_t i = 0; i < kMaxUnnamedSessions; ++i) strangers.push_back(open(""));
    time_.run();
    EXPECT_FALSE(error(*strangers.back()));
    auto one_more = open("");
    time_.run();
    ASSERT_TRUE(error(*one_more));
    EXPECT_EQ(error(*one_more)->code(), Code::kLimitReached);
    auto agent = open("agent-1");
    agent->handlers.on_frame(encode_sync({9, "status"}));
    time_.run();
    EXPECT_FALSE(error(*agent));
    time_.advance(kUnnamedSessionUs + 2'000'000);
    EXPECT_FALSE(agent->closed);
    for (const auto& stranger : strangers) {
        ASSERT_TRUE(error(*stranger));
        EXPECT_EQ(error(*stranger)->code(), Code::kTimeout);
        EXPECT_TRUE(stranger->closed);
    }
    auto next = open("");
    next->handlers.on_frame(encode(EnrolFrame{"good", "request"}));
    time_.run();
    ASSERT_FALSE(next->to_agent.empty());
    EXPECT_EQ(next->to_agent[0][0], static_cast<uint8_t>(FrameType::kEnrolled));
}

// Broken if the certificate of a compute host's QEMU let somebody send, ask or enrol as an agent
// while the vault, which would refuse him, is away.
TEST_F(ProcessServerTest, AComputeHostIsNoAgent) {
    auto wire = connect("compute:rack");
    ASSERT_TRUE(error(*wire));
    EXPECT_EQ(error(*wire)->code(), Code::kUnauthenticated);
    for (const char* token : {"", "good"}) {
        auto enrols = std::make_shared<Wire>();
        server_->accept(std::make_unique<WireConnection>(enrols, "compute:rack"));
        enrols->handlers.on_frame(encode(EnrolFrame{token, "request"}));
        time_.run();
        ASSERT_TRUE(error(*enrols));
        EXPECT_EQ(error(*enrols)->code(), Code::kUnauthenticated);
    }
}

TEST_F(ProcessServerTest, ControlConversationIsPassedOn) {
    auto wire = std::make_shared<Wire>();
    server_->accept(std::make_unique<WireConnection>(wire, "agent-1"));
    wire->handlers.on_frame(encode_sync({9, "status"}));
    time_.run();
    ASSERT_EQ(wire->to_agent.size(), 1u);
    auto reply = decode_sync(ByteView(wire->to_agent[0]).subspan(1));
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->request, 9u);
    EXPECT_EQ(reply->document, "agent-1:status");
}

// Broken if questions were mixed up, or a connection took only one at a time.
TEST_F(ProcessServerTest, QuestionsAreAnsweredByTheVault) {
    auto wire = open("agent-1");
    for (uint64_t i = 0; i < kMaxCompareQuestions; ++i) wire->handlers.on_frame(question(i));
    EXPECT_TRUE(wire->to_agent.empty());
    compare();
    ASSERT_EQ(wire->to_agent.size(), kMaxCompareQuestions);
    for (uint64_t i = 0; i < kMaxCompareQuestions; ++i) {
        ASSERT_EQ(wire->to_agent[i][0], static_cast<uint8_t>(FrameType::kCompared));
        auto answer = decode_compared(ByteView(wire->to_agent[i]).subspan(1));
        ASSERT_TRUE(answer);
        EXPECT_EQ(answer->request, i);
        EXPECT_EQ(answer->answer.sums, std::vector<BlockSum>(2, BlockSum{uint8_t(i)}));
        EXPECT_EQ(vault_.compared[i], "agent-1");
    }
    // As many again, once those are answered.
    for (uint64_t i = 0; i < kMaxCompareQuestions; ++i) wire->handlers.on_frame(question(i));
    compare();
    EXPECT_EQ(wire->to_agent.size(), 2 * kMaxCompareQuestions);
}

// Broken if an agent were given what the vault lends to another one only, or a line that carries
// questions about a return carried anything else.
TEST_F(ProcessServerTest, AReturnIsTheVaultsToAllow) {
    ReturnFrame asked;
    asked.request = 3;
    asked.item = item_;
    asked.question.to = {9};
    auto wire = open("agent-1");
    wire->handlers.on_frame(encode(asked));
    compare();
    ASSERT_TRUE(error(*wire));
    EXPECT_EQ(error(*wire)->code(), Code::kForbidden);
    EXPECT_EQ(vault_.returned, std::vector<std::string>{"appliance-1 agent-1 9"})
        << "in the name that the certificate proves";
    auto other = open("agent-1");
    other->handlers.on_frame(encode(asked));
    other->handlers.on_frame(encode_sync({9, "status"}));
    compare();
    ASSERT_TRUE(error(*other));
    EXPECT_EQ(error(*other)->code(), Code::kMalformed);
}

// Broken if an agent that was removed went on sending, or could come again, or took others with it.
TEST_F(ProcessServerTest, ARefusedAgentsConnectionsEnd) {
    auto gone = connect("agent-1");
    auto stays = open("agent-2");
    EXPECT_EQ(server_->agents(), (std::vector<std::string>{"agent-1", "agent-2"}));
    server_->refuse_agents({"agent-1"});
    time_.run();
    ASSERT_TRUE(error(*gone));
    EXPECT_EQ(error(*gone)->code(), Code::kUnauthenticated);
    EXPECT_FALSE(error(*stays));
    time_.advance(2'000'000);
    EXPECT_EQ(server_->agents(), (std::vector<std::string>{"agent-1", "agent-2"}))
        << "it is asked about, so that it may come back";
    for (const Bytes& frame : {encode(EnrolFrame{"", "request"}), encode_sync({1, "status"})}) {
        auto again = open("agent-1");
        again->handlers.on_frame(frame);
        time_.run();
        ASSERT_TRUE(error(*again));
        EXPECT_EQ(error(*again)->code(), Code::kUnauthenticated);
    }
    server_->refuse_agents({});
    auto back = open("agent-1");
    back->handlers.on_frame(encode_sync({1, "status"}));
    time_.run();
    EXPECT_FALSE(error(*back));
}

// Broken if an agent needed a token for its next certificate, or a stranger did not.
TEST_F(ProcessServerTest, AnAgentsCertificateIsRenewedWithoutAToken) {
    auto agent = open("agent-1");
    agent->handlers.on_frame(encode(EnrolFrame{"", "request"}));
    time_.run();
    ASSERT_EQ(agent->to_agent.size(), 1u);
    EXPECT_EQ(decode_enrolled(decode_frame(agent->to_agent.front())->body)->chain_pem,
              "chain of agent-1");
    auto stranger = open("");
    stranger->handlers.on_frame(encode(EnrolFrame{"", "request"}));
    time_.run();
    ASSERT_TRUE(error(*stranger));
    EXPECT_EQ(error(*stranger)->code(), Code::kUnauthenticated);
}

// Broken if anybody but an enrolled agent could learn what a replica has.
TEST_F(ProcessServerTest, StrangersCompareNothing) {
    auto stranger = open("");
    stranger->handlers.on_frame(question(1));
    compare();
    ASSERT_TRUE(error(*stranger));
    EXPECT_EQ(error(*stranger)->code(), Code::kUnauthenticated);
    EXPECT_TRUE(vault_.compared.empty());
}

// Broken if one connection could be two things: a log's records would wait behind comparisons.
TEST_F(ProcessServerTest, QuestionsHaveAConnectionOfTheirOwn) {
    HelloFrame hello;
    hello.item = item_;
    hello.instance.raw[0] = 1;
    for (const Bytes& other :
         {encode(hello), encode_sync({1, "status"}), encode(EnrolFrame{"good", "request"}),
          encode_data(records(1, 1)), encode(ComparedFrame{})}) {
        SCOPED_TRACE(int{other[0]});
        for (const bool question_first : {true, false}) {
            auto wire = open("agent-1");
            wire->handlers.on_frame(question_first ? question(1) : other);
            wire->handlers.on_frame(question_first ? other : question(1));
            compare();
            ASSERT_TRUE(error(*wire));
            EXPECT_EQ(error(*wire)->code(), Code::kMalformed);
            wire->handlers.on_closed(Error(Code::kConnectionLost, "closed"));
            time_.run();
        }
    }
}

// Broken if a peer could make the appliance hold any number of questions, or out of range ones
// reached the vault.
TEST_F(ProcessServerTest, QuestionsAreLimited) {
    auto greedy = open("agent-1");
    for (uint64_t i = 0; i <= kMaxCompareQuestions; ++i) greedy->handlers.on_frame(question(i));
    compare();
    ASSERT_TRUE(error(*greedy));
    EXPECT_EQ(error(*greedy)->code(), Code::kLimitReached);
    EXPECT_NE(error(*greedy)->retry(), Retry::kNever) << "an agent would copy everything";
    auto odd = open("agent-1");
    Bytes frame = question(1);
    frame[1 + 8 + 16 + 32 + 8 + 4] = 1;  // the offset
    odd->handlers.on_frame(frame);
    compare();
    ASSERT_TRUE(error(*odd));
    EXPECT_EQ(error(*odd)->code(), Code::kMalformed);
    EXPECT_TRUE(vault_.compared.empty());
}

// Broken if an agent could not tell "never" from "not now", or waited for an answer for ever.
TEST_F(ProcessServerTest, TheVaultsErrorReachesTheAgent) {
    for (const Code code : {Code::kForbidden, Code::kUnavailable}) {
        vault_.compare_error = Error(code, "planned");
        auto wire = open("agent-1");
        wire->handlers.on_frame(question(1));
        wire->handlers.on_frame(question(2));
        compare();
        ASSERT_EQ(wire->to_agent.size(), 1u) << "the connection ends with the first";
        EXPECT_EQ(error(*wire)->code(), code);
        wire->handlers.on_frame(question(3));
        compare();
        EXPECT_EQ(wire->to_agent.size(), 1u);
        time_.advance(2'000'000);
        EXPECT_TRUE(wire->closed);
    }
}

// Broken if an agent that lost patience and asks again had to wait behind what it asked before: on
// a slow store it would never get an answer.
TEST_F(ProcessServerTest, NobodyAnswersAConnectionThatEnded) {
    auto first = open("agent-1");
    for (uint64_t i = 0; i < 4; ++i) first->handlers.on_frame(question(i));
    time_.run();
    first->handlers.on_closed(Error(Code::kConnectionLost, "closed"));
    time_.run();
    auto second = open("agent-1");
    second->handlers.on_frame(question(7));
    compare();
    EXPECT_EQ(vault_.compared.size(), 1u);
    EXPECT_TRUE(first->to_agent.empty());
    EXPECT_EQ(second->to_agent.size(), 1u);
    // And nobody falls over a server that is gone when the answer comes.
    second->handlers.on_frame(question(8));
    time_.run();
    comparing_.run();
    server_.reset();
    time_.run();
    EXPECT_EQ(second->to_agent.size(), 1u);
}

// ---- bandwidth limits

class LimitedUploads : public ProcessServerTest {
  protected:
    static BandwidthLimit limit(const char* text) {
        auto parsed = BandwidthLimit::parse(text, "UTC");
        EXPECT_TRUE(parsed) << parsed.error().to_string();
        return parsed.value_or(BandwidthLimit());
    }
    uint64_t sent() const {
        uint64_t bytes = 0;
        for (const auto& segment : vault_.segments) bytes += segment.object_bytes;
        return bytes;
    }
    UploadStatus upload() const { return server_->status().at(0).upload; }
};

// Broken if more were sent than a limit allows, a change waited for a restart, or something were
// lost on the way.
TEST_F(LimitedUploads, KeepWithinTheRateAndFollowChanges) {
    vault_.bandwidth = "100kB/s";
    auto wire = connect("agent-1");
    for (uint64_t first = 1; first < 1000; first += 25)
        wire->handlers.on_frame(encode_data(noise(first, 25)));  // 4 MB
    time_.advance(20'000'000);
    EXPECT_LE(sent(), 100'000u * 20 + 25'000 + (360u << 10) + kSmallReserveBytes);
    EXPECT_GE(sent(), 100'000u * 15);
    EXPECT_EQ(last_ack(*wire).received.v, 1000u) << "what is received does not wait";
    EXPECT_TRUE(upload().limited);
    EXPECT_FALSE(upload().total_counts);
    EXPECT_EQ(upload().rate, 100'000u);
    EXPECT_GT(upload().waiting_bytes, 1'500'000u);
    EXPECT_NEAR(double(upload().eta_s), double(upload().waiting_bytes) / 100'000, 5);
    // The appliance's own, smaller one, counts as well, from now on.
    server_->set_bandwidth(limit("50kB/s"));
    EXPECT_TRUE(upload().total_counts);
    const uint64_t before = sent();
    time_.advance(10'000'000);
    EXPECT_LE(sent() - before, 50'000u * 10 + (360u << 10) + kSmallReserveBytes);
    server_->set_bandwidth({});
    server_->set_item_bandwidths({});
    time_.advance(1'100'000);
    EXPECT_EQ(last_ack(*wire).stored.v, 1000u) << "at once";
    EXPECT_FALSE(upload().limited);
    EXPECT_EQ(upload().waiting_bytes, 0u);
    const auto all = stored_sequences();
    ASSERT_EQ(all.size(), 1000u);
    for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(all[i], i + 1);
}

// It is Tuesday, 22:13:20. Broken if a pause ended late, or never because nothing else happened.
TEST_F(LimitedUploads, APauseEndsWithItsWindow) {
    server_->set_bandwidth(limit("paused Tue 22:00-22:14"));
    auto wire = connect("agent-1");
    wire->handlers.on_frame(encode_data(noise(1, 100)));
    time_.advance(39'000'000);
    EXPECT_EQ(sent(), 0u);
    EXPECT_TRUE(upload().limited);
    EXPECT_EQ(upload().rate, 0u);
    EXPECT_EQ(upload().eta_s, -1);
    time_.advance(2'000'000);
    EXPECT_EQ(last_ack(*wire).stored.v, 100u);
    // And begins with it, a week later.
    time_.advance(7ll * 86'400 * 1'000'000 - 60'000'000);
    wire = connect("agent-1", 2);
    wire->handlers.on_frame(encode_data(noise(101, 100)));
    time_.advance(10'000'000);
    EXPECT_EQ(last_ack(*wire).stored.v, 100u);
}

// Broken if a limit that is too small lost what was written, or let the spool grow without end.
TEST_F(LimitedUploads, ALineThatIsTooSlowFillsTheSpoolAndStopsTheSender) {
    tune_ = [](ProcessServerOptions& options) { options.spool_bytes = 1 << 20; };
    boot();
    vault_.bandwidth = "10kB/s";
    auto wire = connect("agent-1");
    uint64_t next = 1;
    for (int round = 0; round < 50 && last_ack(*wire).window_bytes > 0; ++round) {
        wire->handlers.on_frame(encode_data(noise(next, 50)));
        next += 50;
        time_.advance(300'000);
    }
    EXPECT_EQ(last_ack(*wire).window_bytes, 0u);
    EXPECT_LE(next, 50u * 10);
    EXPECT_FALSE(error(*wire));
    // A restart forgets neither what waits nor that it has to.
    boot();
    time_.advance(60'000'000);
    EXPECT_LE(sent(), 10'000u * 90 + (600u << 10));
    server_->set_item_bandwidths({});
    time_.advance(3'000'000);
    EXPECT_EQ(stored_sequences().size(), next - 1);
}

}  // namespace
}  // namespace farshore::process_server_test
