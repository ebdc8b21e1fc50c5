#include "cli/call.h"

#include "cli/show.h"

int call_judged(struct invocation *inv, const char *method, const ProtobufCMessage *request,
                const ProtobufCMessageDescriptor *response, void (*show)(const ProtobufCMessage *answer),
                enum exit_status (*judge)(const ProtobufCMessage *answer))
{
    struct session s;

    if (session_open(&s, &inv->common) != ERR_OK)
        return EXIT_USAGE;
    ProtobufCMessage *answer = session_call(&s, method, request, response);
    if (answer && inv->common.json)
        show_json(answer);
    else if (answer && show)
        show(answer);
    int status = answer ? (int)judge(answer) : EXIT_RPC_FAIL;
    session_free_message(answer);
    session_close(&s);
    return status;
}

static enum exit_status good(const ProtobufCMessage *answer)
{
    (void)answer;
    return EXIT_DONE;
}

int call_once(struct invocation *inv, const char *method, const ProtobufCMessage *request,
              const ProtobufCMessageDescriptor *response, void (*show)(const ProtobufCMessage *answer))
{
    return call_judged(inv, method, request, response, show, good);
}
