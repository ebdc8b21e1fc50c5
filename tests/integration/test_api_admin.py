"""AdminService: tenants and keys."""
import uuid

import grpc
import pytest
from harness.answers import refused


@pytest.fixture(scope="module")
def api(module_stack_without_worker):
    return module_stack_without_worker


@pytest.fixture(scope="module")
def admin(api):
    return api.client(api.make_tenant())


def test_tenant_and_key_from_nothing(api, admin):
    pb, name = api.pb, f"t-{uuid.uuid4()}"
    t = admin.admin.CreateTenant(pb.CreateTenantRequest(name=name)).tenant
    assert (t.name, t.device_count) == (name, 0) and t.created_at.seconds
    refused(api, grpc.StatusCode.ALREADY_EXISTS, "TENANT_EXISTS",
            lambda: admin.admin.CreateTenant(pb.CreateTenantRequest(name=name)))
    made = admin.admin.CreateApiKey(pb.CreateApiKeyRequest(tenant=name, role=pb.ROLE_OPERATOR, description="d\u00e9pot"))
    assert made.key.tenant == name and made.key.role == pb.ROLE_OPERATOR and made.key.description == "d\u00e9pot"
    other = api.client(made.secret)
    api.import_devices(other, ["x", "y"])
    assert [t.device_count for t in tenants(admin, pb) if t.name == name] == [2]
    keys = admin.admin.ListApiKeys(pb.ListApiKeysRequest(tenant=name)).keys
    assert [k.id for k in keys] == [made.key.id] and not keys[0].HasField("revoked_at")
    secret = made.secret.split("_")[2]
    assert api.sql("SELECT count(*) FROM api_key WHERE encode(secret_hash, 'hex') = %s", secret) == [(0,)]
    revoked = admin.admin.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=made.key.id)).key
    assert revoked.HasField("revoked_at")
    assert admin.admin.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=made.key.id)).key == revoked
    actions = [a for a, in api.sql("SELECT a.action FROM audit a JOIN tenant t ON t.id = a.tenant_id WHERE t.name = %s"
                                   " ORDER BY a.id", name)]
    assert actions[:4] == ["create_tenant", "create_key", "import_devices", "revoke_key"]


def tenants(admin, pb, size=1000):
    out, token = [], ""
    while True:
        a = admin.admin.ListTenants(pb.ListTenantsRequest(page_size=size, page_token=token))
        out += a.tenants
        token = a.next_page_token
        if not token:
            return out


def test_lists_by_pages(api, admin):
    pb = api.pb
    names = sorted(f"page-{i}" for i in range(7))
    for n in names:
        admin.admin.CreateTenant(pb.CreateTenantRequest(name=n))
    assert [t.name for t in tenants(admin, pb, 2) if t.name.startswith("page-")] == names
    made = [admin.admin.CreateApiKey(pb.CreateApiKeyRequest(tenant="page-0", role=pb.ROLE_READ_ONLY)).key.id for _ in range(5)]
    first = admin.admin.ListApiKeys(pb.ListApiKeysRequest(tenant="page-0", page_size=3))
    rest = admin.admin.ListApiKeys(pb.ListApiKeysRequest(tenant="page-0", page_size=3, page_token=first.next_page_token))
    assert [k.id for k in [*first.keys, *rest.keys]] == made and not rest.next_page_token
    refused(api, grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", lambda: admin.admin.ListApiKeys(
        pb.ListApiKeysRequest(tenant="page-1", page_token=first.next_page_token)))


def test_refusals(api, admin):
    pb = api.pb
    not_found, invalid = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
    refused(api, not_found, "TENANT_NOT_FOUND", lambda: admin.admin.CreateApiKey(
        pb.CreateApiKeyRequest(tenant="nobody", role=pb.ROLE_ADMIN)))
    refused(api, not_found, "TENANT_NOT_FOUND", lambda: admin.admin.ListApiKeys(pb.ListApiKeysRequest(tenant="nobody")))
    refused(api, not_found, "KEY_NOT_FOUND", lambda: admin.admin.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=2**50)))
    for call, fields in ((lambda: admin.admin.CreateTenant(pb.CreateTenantRequest(name="a b")), {"name"}),
                         (lambda: admin.admin.CreateTenant(pb.CreateTenantRequest()), {"name"}),
                         (lambda: admin.admin.CreateApiKey(pb.CreateApiKeyRequest(tenant="", role=9, description="x" * 257)),
                          {"tenant", "role", "description"}),
                         (lambda: admin.admin.CreateApiKey(pb.CreateApiKeyRequest(tenant="t")), {"role"}),
                         (lambda: admin.admin.RevokeApiKey(pb.RevokeApiKeyRequest()), {"key_id"})):
        assert set(refused(api, invalid, "INVALID_FIELD", call)) == fields
