# Muster: build, test, measure, install. `make help` lists the targets.
#
# Every .c of a folder belongs to that folder's program; lib/ and proto/ make one archive that all programs link.
# build/ holds everything made; build/san/ the same with ASan and UBSan; build/fuzz/ the fuzz targets.

PREFIX  ?= /usr/local
ifeq ($(origin CC),default)
CC      := gcc
endif
BUILD   ?= build
DESTDIR ?=
DEVICES ?= 10000
WORKERS ?= 2
QUICK   ?=
RECORD  ?=
SEED    ?= 1
ROUNDS  ?= 1
MINUTES ?=
FUZZ_WALL ?= 60
FUZZ_SECONDS ?= 60
SEEDS   ?= 1..10000
CORES   := $(shell nproc)
JOBS    ?= $(CORES)
PYTHON  := /usr/bin/python3
VERSION := 0.1.0

PACKAGES := libev-dev libhiredis-dev libssl-dev libnghttp2-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler \
            libprotobuf-dev protobuf-compiler-grpc grpc-proto libpq-dev libsodium-dev libjansson-dev libmicrohttpd-dev \
            libinih-dev libcmocka-dev libcurl4-openssl-dev postgresql redis-server openssl build-essential pkg-config \
            clang clang-format clang-tidy cppcheck libclang-rt-14-dev \
            python3 python3-grpcio python3-protobuf python3-paho-mqtt python3-psycopg2 python3-redis python3-pytest \
            python3-pytest-timeout python3-pytest-xdist gnutls-bin libnss3-tools libfaketime valgrind

# What Muster is measured beside or with, and nothing else needs.
BENCH_PACKAGES := mosquitto nats-server rabbitmq-server ruby-sidekiq beanstalkd nodejs python3-matplotlib

WARN   := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wconversion
CFLAGS ?= -O2 -g
FLAGS   = -std=gnu11 $(WARN) -D_GNU_SOURCE -DMUSTER_VERSION='"$(VERSION)"' -I. -I$(BUILD)/gen $(CFLAGS) $(SAN)
INCS   := $(shell pkg-config --cflags libpq 2>/dev/null) -I/usr/include/postgresql
LIBS   := -lnghttp2 -lssl -lcrypto -lev -lhiredis -lpq -lprotobuf-c -lsodium -ljansson -lmicrohttpd -linih -lm -Wl,--as-needed -lcurl -Wl,--no-as-needed
SAN    ?=
# Say what is made, not how; V=1 shows the commands.
Q      := $(if $(V),,@)
say     = $(if $(V),@:,@echo '  $(1) $@')
# For a make of a make that compiles: on all cores, unless make was told how many.
PARALLEL = --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(CORES))

# --- generated code ---------------------------------------------------------------------------------------------------
PROTOS := $(wildcard proto/muster/v1/*.proto proto/muster/internal/v1/*.proto proto/google/rpc/*.proto)
GRPC_PROTOS := grpc/health/v1/health.proto grpc/reflection/v1/reflection.proto grpc/reflection/v1alpha/reflection.proto \
               grpc/testing/empty.proto grpc/testing/messages.proto grpc/testing/test.proto
WKT_PROTOS := google/protobuf/any.proto google/protobuf/duration.proto google/protobuf/timestamp.proto google/protobuf/descriptor.proto
PROTOC := protoc -Iproto -I/usr/share/grpc-proto -I/usr/include
GEN_C  := $(PROTOS:proto/%.proto=$(BUILD)/gen/%.pb-c.c) $(GRPC_PROTOS:%.proto=$(BUILD)/gen/%.pb-c.c) \
          $(WKT_PROTOS:%.proto=$(BUILD)/gen/%.pb-c.c)
GEN_H  := $(GEN_C:.c=.h)
SCHEMA := $(wildcard schema/postgres/*.sql schema/redis/*.lua)

# --- objects ----------------------------------------------------------------------------------------------------------
LIB_C  := $(wildcard lib/base/*.c lib/store/*.c proto/*.c)
objects = $(patsubst %.c,$(BUILD)/%.o,$(1))
LIB    := $(BUILD)/libmuster.a
DISPATCHER_C := $(wildcard dispatcher/*.c)
WORKER_C     := $(wildcard workers/*.c)
CLI_C        := $(wildcard cli/*.c cli/chaos/*.c)
FLEET_C      := $(wildcard bench/fleet/*.c)
FLOOR_C      := $(wildcard bench/floor/*.c)
SENDER_C     := $(wildcard bench/sender/*.c)
SUBMIT_C     := $(wildcard bench/submit/*.c)
PEERS_C      := $(wildcard bench/peers/*.c)
PARTS  := $(BUILD)/libdispatcher.a $(BUILD)/libworker.a $(BUILD)/libcli.a $(BUILD)/libfleet.a
ALL_C  := $(LIB_C) $(DISPATCHER_C) $(WORKER_C) $(CLI_C) $(FLEET_C) $(FLOOR_C) $(SENDER_C) $(SUBMIT_C) $(PEERS_C)
# A folder without a main.c yet makes no program.
PROGRAMS := $(if $(wildcard dispatcher/main.c),$(BUILD)/muster-dispatcher) $(if $(wildcard workers/main.c),$(BUILD)/muster-worker) \
            $(if $(wildcard cli/main.c),$(BUILD)/muster) $(if $(wildcard bench/fleet/main.c),$(BUILD)/muster-fleet) \
            $(if $(wildcard bench/floor/main.c),$(BUILD)/muster-floor) $(if $(wildcard bench/sender/main.c),$(BUILD)/muster-sender) \
            $(if $(wildcard bench/submit/main.c),$(BUILD)/muster-submit-load) \
            $(if $(wildcard bench/peers/main.c),$(BUILD)/muster-peers)
UNIT_C := $(wildcard tests/unit/test_*.c)
UNIT   := $(UNIT_C:tests/unit/%.c=$(BUILD)/unit/%)
STORE  := $(patsubst tests/store/%.c,$(BUILD)/store/%,$(wildcard tests/store/test_*.c))

FUZZ_C := $(wildcard tests/fuzz/fuzz_*.c)
FUZZ   := $(FUZZ_C:tests/fuzz/%.c=$(BUILD)/%)
SIM_TEST_C := $(wildcard tests/sim/test_*.c)
SIM_C  := $(filter-out $(SIM_TEST_C),$(wildcard tests/sim/*.c))
SIM_MODEL_C := $(wildcard tests/sim/redis_model.c tests/sim/redis_scripts.c tests/sim/pg_*.c)
SIM_TEST := $(SIM_TEST_C:tests/sim/%.c=$(BUILD)/sim-tests/%)
SIM    := $(BUILD)/muster-sim
GRPC_TEST_SERVER := $(if $(wildcard tests/grpc_server/*.c),$(BUILD)/grpc-test-server)

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all
all: $(PROGRAMS) ## build every program into build/

$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h: proto/%.proto
	@mkdir -p $(BUILD)/gen
	$(call say,PROTOC)
	$(Q)$(PROTOC) --c_out=$(BUILD)/gen $<
$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h: /usr/share/grpc-proto/%.proto
	@mkdir -p $(BUILD)/gen
	$(call say,PROTOC)
	$(Q)$(PROTOC) --c_out=$(BUILD)/gen $<
$(BUILD)/gen/%.pb-c.c $(BUILD)/gen/%.pb-c.h: /usr/include/%.proto
	@mkdir -p $(BUILD)/gen
	$(call say,PROTOC)
	$(Q)$(PROTOC) --c_out=$(BUILD)/gen $<
# What server reflection serves: the descriptors of every public service, as one FileDescriptorSet.
$(BUILD)/gen/descriptors.bin: $(PROTOS)
	@mkdir -p $(BUILD)/gen
	$(Q)$(PROTOC) --include_imports --descriptor_set_out=$@ $(filter proto/muster/v1/%,$(PROTOS)) $(GRPC_PROTOS)
$(BUILD)/gen/descriptors.o: $(BUILD)/gen/descriptors.bin
	$(Q)cd $(BUILD)/gen && ld -r -b binary -z noexecstack -o descriptors.o descriptors.bin

# The folders stand for files that were removed; the .lua and .sql for changed ones.
$(BUILD)/gen/schema.c: schema/embed.py schema/postgres schema/redis $(SCHEMA)
	@mkdir -p $(BUILD)/gen
	$(Q)$(PYTHON) schema/embed.py $@ $(SCHEMA)
$(BUILD)/gen/schema.o: $(BUILD)/gen/schema.c lib/store/schema_files.h
	$(Q)$(CC) $(FLAGS) -c -o $@ $<

# The measured figures of the capacity model.
$(BUILD)/gen/plan_figures.c: bench/model_embed.py cli/plan_figures.h bench/model.json
	@mkdir -p $(BUILD)/gen
	$(Q)$(PYTHON) bench/model_embed.py $@ cli/plan_figures.h bench/model.json
$(BUILD)/gen/plan_figures.o: $(BUILD)/gen/plan_figures.c
	$(Q)$(CC) $(FLAGS) -c -o $@ $<

$(BUILD)/gen/%.pb-c.o: $(BUILD)/gen/%.pb-c.c | $(GEN_H)
	$(call say,CC)
	$(Q)$(CC) -std=gnu11 -I$(BUILD)/gen $(CFLAGS) $(SAN) -c -o $@ $<
$(BUILD)/%.o: %.c | $(GEN_H)
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(FLAGS) $(INCS) -MMD -MP -c -o $@ $<

$(LIB): $(call objects,$(LIB_C)) $(GEN_C:.c=.o) $(BUILD)/gen/descriptors.o $(BUILD)/gen/schema.o
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/libdispatcher.a: $(call objects,$(filter-out %/main.c,$(DISPATCHER_C)))
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/libworker.a: $(call objects,$(filter-out %/main.c,$(WORKER_C)))
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/libcli.a: $(call objects,$(filter-out %/main.c,$(CLI_C))) $(BUILD)/gen/plan_figures.o
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/libfleet.a: $(call objects,$(filter-out %/main.c,$(FLEET_C)))
	$(Q)rm -f $@ && ar rcs $@ $^

link = $(CC) $(CFLAGS) $(SAN) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS)
$(BUILD)/muster-dispatcher: $(call objects,$(DISPATCHER_C)) $(LIB)
	$(call say,LD)
	$(Q)$(link)
$(BUILD)/muster-worker: $(call objects,$(WORKER_C)) $(LIB)
	$(call say,LD)
	$(Q)$(link)
$(BUILD)/muster: $(call objects,$(CLI_C)) $(BUILD)/gen/plan_figures.o $(LIB)
	$(call say,LD)
	$(Q)$(link)
$(BUILD)/muster-fleet: $(call objects,$(FLEET_C)) $(LIB)
	$(call say,LD)
	$(Q)$(link)
$(BUILD)/muster-floor: $(call objects,$(FLOOR_C)) $(LIB)
	$(call say,LD)
	$(Q)$(link)
# The fleet's links and codecs serve its other side too.
$(BUILD)/muster-sender: $(call objects,$(SENDER_C)) $(BUILD)/libfleet.a $(LIB)
	$(call say,LD)
	$(Q)$(link)
$(BUILD)/muster-submit-load: $(call objects,$(SUBMIT_C)) $(LIB)
	$(call say,LD)
	$(Q)$(link)
$(BUILD)/muster-peers: $(call objects,$(PEERS_C)) $(LIB)
	$(call say,LD)
	$(Q)$(link)
# What tests/integration/test_grpc.py drives: the gRPC server with the interop test service.
$(BUILD)/grpc-test-server: $(call objects,$(wildcard tests/grpc_server/*.c)) $(LIB)
	$(call say,LD)
	$(Q)$(link)
# What tests/unit/inject.c stands in for.
INJECTED := malloc calloc realloc aligned_alloc strdup strndup recv send accept4 socket connect protobuf_c_message_unpack \
            $(addprefix nghttp2_,session_callbacks_new option_new session_server_new2 session_client_new2 submit_response \
                submit_request submit_trailer submit_settings submit_rst_stream submit_goaway session_resume_data \
                session_consume_stream session_consume_connection session_mem_recv session_mem_send)
$(filter $(BUILD)/unit/test_inject_%,$(UNIT)): $(BUILD)/tests/unit/inject.o
$(BUILD)/unit/test_inject_%: INJECT := $(INJECTED:%=-Wl,--wrap=%)
$(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(PARTS) $(LIB)
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(SAN) $(INJECT) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS) -lcmocka
# What tests/store/inject_stores.c stands in for.
INJECTED_STORES := redisConnectNonBlock redisConnectUnixNonBlock redisReaderFeed redisReaderGetReply \
                   $(addprefix PQ,conninfoParse connectStartParams connectPoll setnonblocking enterPipelineMode sendPrepare \
                       sendQueryPrepared pipelineSync flush consumeInput)
$(filter $(BUILD)/store/test_inject_%,$(STORE)): $(BUILD)/tests/unit/inject.o $(BUILD)/tests/store/inject_stores.o
$(BUILD)/store/test_inject_%: INJECT := $(INJECTED:%=-Wl,--wrap=%) $(INJECTED_STORES:%=-Wl,--wrap=%)
$(BUILD)/store/%: $(BUILD)/tests/store/%.o $(BUILD)/tests/store/live_fixture.o $(BUILD)/tests/store/servers.o $(LIB)
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(SAN) $(INJECT) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS) -lcmocka

# The simulation: the real dispatcher and worker over its own libev, Redis, PostgreSQL, sockets and clock. Its objects
# come first, so that the archive's are not taken.
SIM_TABLES := $(BUILD)/gen/sim_tables
$(SIM_TABLES).c: tests/sim/tables.py $(SCHEMA) $(wildcard lib/store/db_*.c)
	@mkdir -p $(@D)
	$(Q)$(PYTHON) $^ > $@
$(SIM_TABLES).o: $(SIM_TABLES).c tests/sim/pg_model.h tests/sim/redis_model.h
	$(Q)$(CC) $(FLAGS) $(INCS) -c -o $@ $<
$(SIM): $(call objects,$(SIM_C)) $(SIM_TABLES).o $(BUILD)/bench/fleet/mqtt.o $(BUILD)/libdispatcher.a $(BUILD)/libworker.a $(LIB)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(SAN) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(filter-out -lev,$(LIBS))
# Its models against the real servers.
$(BUILD)/sim-tests/%: $(BUILD)/tests/sim/%.o $(call objects,$(SIM_MODEL_C)) $(SIM_TABLES).o $(BUILD)/tests/store/servers.o $(LIB)
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(SAN) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS) -lcmocka

# Linked with an archive that was built for fuzzing: see `fuzz`.
$(FUZZ): $(BUILD)/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(PARTS) $(LIB)
	$(call say,LD)
	$(Q)$(CC) $(CFLAGS) $(SAN) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS)

# Python stubs of the contract, for tests and examples.
PY := $(BUILD)/py/.made
$(PY): $(PROTOS)
	@mkdir -p $(@D)
	$(call say,PROTOC)
	$(Q)$(PROTOC) --python_out=$(@D) --grpc_python_out=$(@D) --plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin \
	    $(PROTOS:proto/%=%) $(GRPC_PROTOS)
	@touch $@

-include $(wildcard $(BUILD)/*/*.d $(BUILD)/*/*/*.d $(BUILD)/*/*/*/*.d)

# --- setting up -------------------------------------------------------------------------------------------------------
# Installs those packages of a list that are missing.
install_packages = missing=; for p in $(1); do \
	    [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || missing="$$missing $$p"; done; \
	[ -z "$$missing" ] || { echo "installing$$missing"; sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	    $$sudo apt-get update -qq && \
	    $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; }
# Until this shell ends no package starts its service: each run of a benchmark has servers of its own.
without_services = policy=/usr/sbin/policy-rc.d; sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	[ -e $$policy ] || { trap "$$sudo rm -f $$policy" EXIT; \
	    printf '\#!/bin/sh\nexit 101\n' | $$sudo tee $$policy >/dev/null && $$sudo chmod 755 $$policy; }

.PHONY: deps
deps: ## install the Debian packages that are missing (asks nothing; as root, or with sudo)
	@$(call install_packages,$(PACKAGES))

.PHONY: bench-deps
bench-deps: deps ## also install what Muster is measured beside (bench-peers)
	@$(without_services); $(call install_packages,$(BENCH_PACKAGES)); command -v npm >/dev/null || { $(call install_packages,npm); }
	@mkdir -p $(BUILD)/peers && cp bench/peers/package.json bench/peers/package-lock.json $(BUILD)/peers
	@cd $(BUILD)/peers && npm ci --silent --ignore-scripts --no-audit --no-fund

.PHONY: install
install: all ## install under $(DESTDIR)$(PREFIX): programs, and the contract for clients' authors
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/muster/proto/muster/v1
	$(if $(PROGRAMS),install $(filter-out %/muster-floor %/muster-sender %/muster-submit-load %/muster-peers,$(PROGRAMS)) $(DESTDIR)$(PREFIX)/bin)
	install -m 644 $(wildcard proto/muster/v1/*.proto) $(DESTDIR)$(PREFIX)/share/muster/proto/muster/v1

.PHONY: demo
demo: deps ## one lock command to DEVICES=10000 simulated devices on WORKERS=2 workers, and back
	@$(MAKE) $(PARALLEL) all
	$(BUILD)/muster dev --devices $(DEVICES) --workers $(WORKERS) --demo

.PHONY: chaos
chaos: all ## the real stack under load, everything in it killed, stopped, cut off and filled up; then every promise judged (SEED=n ROUNDS=n)
	$(BUILD)/muster chaos --seed $(SEED) --rounds $(ROUNDS)

.PHONY: bench
bench: all $(PY) ## measure the core path against its floor (QUICK=1: within 50 s)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/core.py $(if $(QUICK),--quick)

.PHONY: bench-peers
bench-peers: all $(PY) ## Muster beside message brokers and job queues (bench-deps installs them; ONLY=core or queue; QUICK=1: within 2 minutes)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/peers.py $(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY))

.PHONY: bench-scale
# DEVICES has a default of its own here.
bench-scale: all $(PY) ## 300,000 TLS devices on this machine (DEVICES=n, QUICK=1, TLS_RECORDS=lean, PLAIN=1, OPEN=1: 100 open batches)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/scale.py $(if $(QUICK),--quick) $(if $(PLAIN),--mode plain) $(if $(OPEN),--mode open) \
	    $(if $(TLS_RECORDS),--mode $(TLS_RECORDS)) $(if $(filter-out file,$(origin DEVICES)),--devices $(DEVICES))

.PHONY: bench-check
bench-check: all $(PY) ## whether the hot path got dearer than bench/check.json says (within 60 s; RECORD=1: record anew)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/check.py $(if $(RECORD),--record)

.PHONY: bench-model
bench-model: all $(PY) ## check the capacity model with 1, 2 and 4 workers (RECORD=1: measure its figures anew, bench/model.json)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/model.py $(if $(QUICK),--quick) $(if $(RECORD),--record)

.PHONY: bench-flat
bench-flat: all $(PY) ## what a command costs in batches of 1,000 to 1,000,000 devices (QUICK=1: one round)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/queue_flat.py $(if $(QUICK),--quick)

.PHONY: bench-overload
bench-overload: all $(PY) ## half-open peers, a fleet all at once, a tenant that floods: what the others feel (QUICK=1: smaller)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/overload.py $(if $(QUICK),--quick)

.PHONY: soak
soak: all $(PY) ## whether memory stays flat under a moderate load of every kind (MINUTES=10)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/soak.py $(if $(MINUTES),--minutes $(MINUTES))

.PHONY: bench-rebuild
bench-rebuild: all $(PY) ## Redis lost entirely under load: until all flows again (QUICK=1: a tenth of the devices, one round)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/rebuild.py $(if $(QUICK),--quick)

.PHONY: bench-control
bench-control: all $(PY) ## steering and stopping a command to 300,000 devices (QUICK=1: a tenth of them)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/control.py $(if $(QUICK),--quick)

.PHONY: bench-lists
bench-lists: all $(PY) ## measure imports, batches to long lists of ids, exports and watchers (QUICK=1: a tenth of the devices)
	MUSTER_BUILD=$(BUILD) $(PYTHON) bench/lists.py $(if $(QUICK),--quick)

# --- tests ------------------------------------------------------------------------------------------------------------
# gcc's two runtimes write their reports where they are told only when linked statically, as clang's one is by default.
STATIC_SANITIZERS := $(if $(findstring clang,$(CC)),,-static-libasan -static-libubsan)
SANITIZED := SAN='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer $(STATIC_SANITIZERS)' CFLAGS='-O1 -g'
FUZZED    := SAN='-fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined' CFLAGS='-O1 -g' CC=clang

.PHONY: test
test: deps ## everything under ASan and UBSan: unit, store and integration tests, a short fuzz of each decoder
	@$(MAKE) $(PARALLEL) san fuzz-targets $(SIM)
	MUSTER_BUILD=$(BUILD)/san MUSTER_SIM=$(SIM) $(PYTHON) tests/run.py --pytest tests/integration --fuzz-wall $(FUZZ_WALL) \
	    --programs $(UNIT:$(BUILD)/%=$(BUILD)/san/%) $(STORE:$(BUILD)/%=$(BUILD)/san/%) $(SIM_TEST:$(BUILD)/%=$(BUILD)/san/%) \
	    --fuzz $(FUZZ:$(BUILD)/%=$(BUILD)/fuzz/%)

.PHONY: test-chaos
test-chaos: ## a round of chaos with a fixed schedule: ten of each kill, three of every other fault (within 5 minutes)
	@$(MAKE) $(PARALLEL) all
	@$(PYTHON) tests/run.py --chaos $(BUILD)/muster

.PHONY: unit
unit: $(UNIT) ## unit tests, without sanitizers
	@$(PYTHON) tests/run.py --programs $(UNIT)

.PHONY: store
store: $(STORE) ## lib/store against servers of its own, without sanitizers
	@$(PYTHON) tests/run.py --programs $(STORE)

.PHONY: sim
sim: $(SIM) ## the simulation: SEEDS=1..10000 installations on virtual time (one: build/muster-sim --seed 7 --trace), JOBS=n at a time
	$(SIM) --seeds $(SEEDS) --jobs $(JOBS)

.PHONY: integration
integration: all py grpc-test-server $(SIM) ## the real daemons, driven by stock clients, without sanitizers
	MUSTER_BUILD=$(BUILD) $(PYTHON) tests/run.py --pytest tests/integration

# What nothing else sees: values that were never set, in our code and on the way into libraries and the kernel.
MEMCHECK := valgrind -q --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect \
            --error-exitcode=99 --num-callers=20 --freelist-vol=2000000 --vgdb=no --trace-children=yes --trace-children-skip='/usr/*,/bin/*' \
            --log-file={reports}/valgrind.%p
.PHONY: test-valgrind
test-valgrind: deps ## the real daemons under valgrind, patiently (ONLY=tests/integration/test_x.py: those)
	@$(MAKE) $(PARALLEL) BUILD=$(BUILD)/valgrind CFLAGS='-O1 -g' all py grpc-test-server $(BUILD)/valgrind/muster-sim
	MUSTER_BUILD=$(BUILD)/valgrind MUSTER_TEST_PATIENCE=8 MUSTER_TEST_WRAPPER="$(MEMCHECK)" \
	    $(PYTHON) tests/run.py --pytest $(or $(ONLY),tests/integration)

.PHONY: san
san: ## programs and tests with ASan and UBSan, into build/san
	@$(MAKE) $(PARALLEL) BUILD=$(BUILD)/san $(SANITIZED) all test-programs py

.PHONY: fuzz-targets
fuzz-targets:
	@$(MAKE) $(PARALLEL) BUILD=$(BUILD)/fuzz $(FUZZED) fuzz-programs

.PHONY: fuzz
fuzz: fuzz-targets ## each fuzz target for FUZZ_SECONDS=60, one a core (ONLY="mqtt http2": those); goes on with build/fuzz/kept
	@$(PYTHON) tests/run.py --fuzz-seconds $(FUZZ_SECONDS) --keep $(BUILD)/fuzz/kept \
	    --fuzz $(if $(ONLY),$(ONLY:%=$(BUILD)/fuzz/fuzz_%),$(FUZZ:$(BUILD)/%=$(BUILD)/fuzz/%))

.PHONY: test-programs fuzz-programs py grpc-test-server
test-programs: $(UNIT) $(STORE) $(GRPC_TEST_SERVER) $(SIM) $(SIM_TEST)
fuzz-programs: $(FUZZ)
py: $(PY)
grpc-test-server: $(GRPC_TEST_SERVER)

# --- lint -------------------------------------------------------------------------------------------------------------
OURS_C := $(ALL_C) $(UNIT_C) tests/unit/inject.c $(FUZZ_C) $(wildcard tests/store/*.c tests/grpc_server/*.c tests/sim/*.c)
OURS_H := $(wildcard lib/base/*.h lib/store/*.h proto/*.h dispatcher/*.h workers/*.h cli/*.h cli/chaos/*.h bench/fleet/*.h bench/floor/*.h \
                     bench/sender/*.h bench/submit/*.h bench/peers/*.h \
                     tests/store/*.h tests/unit/*.h tests/fuzz/*.h tests/sim/*.h)
FLAGS_FOR_TOOLS = -std=gnu11 -D_GNU_SOURCE -DMUSTER_VERSION=\"$(VERSION)\" -I. -I$(BUILD)/gen $(INCS)

.PHONY: lint
lint: deps ## formats, layers, comments, cppcheck, clang-tidy, a build with gcc, the warnings of clang, and gcc's analysis
	@$(MAKE) --no-print-directory lint-text lint-build lint-tools
	@$(MAKE) $(PARALLEL) lint-analyzer

.PHONY: lint-text
lint-text:
	clang-format --dry-run -Werror $(OURS_C) $(OURS_H)
	tests/lint/includes $(OURS_C) $(OURS_H)
	tests/lint/comments $(filter proto/muster/%,$(PROTOS)) $(OURS_H)

.PHONY: lint-build
lint-build:
	@$(MAKE) $(PARALLEL) all test-programs

# The second compiler, clang, only has to like the code: its warnings are clang-tidy's too.
.PHONY: lint-tools
lint-tools: $(GEN_H)
	printf '%s\n' $(OURS_H) | xargs -P $(CORES) -n 8 tests/lint/headers $(CC) $(FLAGS_FOR_TOOLS) --
	cppcheck --quiet --std=c11 --error-exitcode=1 --enable=warning,performance,portability --inline-suppr -j $(CORES) \
	    --suppressions-list=tests/lint/cppcheck --template=gcc -D_GNU_SOURCE -DMUSTER_VERSION='"$(VERSION)"' -I. $(OURS_C)
	printf '%s\n' $(OURS_C) | xargs -P $(CORES) -n 8 sh -c 'clang-tidy --quiet "$$@" -- $(WARN) $(FLAGS_FOR_TOOLS) 2>/dev/null' tidy

# gcc's own analysis, of what has changed since the last time. lib/base/owned.h is for what it takes for leaked and is not. Not
# of the simulation, where all is owned by lists, maps and models in which gcc 12 loses sight of the owner.
ANALYZED := $(patsubst %.c,$(BUILD)/analyzed/%.ok,$(filter-out tests/sim/%,$(OURS_C)))
$(BUILD)/analyzed/%.ok: %.c | $(GEN_H)
	@mkdir -p $(@D)
	$(call say,ANALYZE)
	$(Q)gcc $(FLAGS_FOR_TOOLS) -DMUSTER_ANALYZED -g -fanalyzer -Werror -MMD -MP -MF $(@:.ok=.d) -MT $@ \
	    -c -o /dev/null $<
	@touch $@
.PHONY: lint-analyzer
lint-analyzer: $(ANALYZED)

# Without what it can't know: who owns an element of a list (unix.Malloc; see owned.h for gcc's, which is told), and va_list.
DEEP := -*,clang-analyzer-core.*,clang-analyzer-deadcode.*,clang-analyzer-unix.*,-clang-analyzer-unix.Malloc,clang-analyzer-security.FloatLoopCounter
.PHONY: lint-deep
lint-deep: $(GEN_H) ## clang's path-sensitive analysis of all C (half an hour on two cores; ONLY="dispatcher/view.c": that)
	printf '%s\n' $(or $(ONLY),$(OURS_C)) | \
	    xargs -P $(JOBS) -n 4 sh -c 'clang-tidy --quiet --checks="$(DEEP)" "$$@" -- $(FLAGS_FOR_TOOLS) 2>/dev/null' tidy

.PHONY: clean
clean: ## remove everything made
	rm -rf $(BUILD)

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
