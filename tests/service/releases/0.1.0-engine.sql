BEGIN TRANSACTION;
CREATE TABLE application_versions (
    version_id TEXT NOT NULL PRIMARY KEY,
    version_name TEXT NOT NULL UNIQUE,
    version_timestamp INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000),
    created_at INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000)
, "application_name" TEXT DEFAULT NULL);
INSERT INTO "application_versions" VALUES('7e012d61-81cf-447f-b9ed-f243d4d0b5f3','1',1795179144000,1795179144000,'metalimmu');
CREATE TABLE dbos_migrations (version INTEGER NOT NULL PRIMARY KEY);
INSERT INTO "dbos_migrations" VALUES(125);
CREATE TABLE notifications (
    message_uuid TEXT NOT NULL DEFAULT (hex(randomblob(16))) PRIMARY KEY,
    destination_uuid TEXT NOT NULL,
    topic TEXT,
    message TEXT NOT NULL,
    created_at_epoch_ms INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000), "serialization" TEXT DEFAULT NULL, "consumed" BOOLEAN NOT NULL DEFAULT FALSE, consumed_by_function_id INTEGER,
    FOREIGN KEY (destination_uuid) REFERENCES workflow_status(workflow_uuid) 
        ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE TABLE "operation_outputs" (
    workflow_uuid TEXT NOT NULL,
    function_id INTEGER NOT NULL,
    function_name TEXT NOT NULL DEFAULT '',
    output TEXT,
    error TEXT,
    child_workflow_id TEXT,
    started_at_epoch_ms INTEGER,
    completed_at_epoch_ms INTEGER,
    serialization TEXT,
    application_name TEXT DEFAULT NULL,
    retention_timestamp INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000),
    PRIMARY KEY (workflow_uuid, function_id)
);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',1,'preflight','{"outcome": "done", "summary": "Fake Fake 1 S0002", "evidence": {"serial": "S0002", "uuid": "00000000-0000-4000-8000-000000000002", "model": "Fake 1", "power": "On"}}',NULL,NULL,1795179145507,1795179145532,'metalimmu_json','metalimmu',1795179145000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',2,'media','{"outcome": "done", "summary": "deployment r-20261120-1c6791tdd", "evidence": {"deployment": "r-20261120-1c6791tdd"}}',NULL,NULL,1795179145545,1795179145576,'metalimmu_json','metalimmu',1795179145000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',3,'insert','{"outcome": "done", "summary": "in Cd", "evidence": {"slot": "/redfish/v1/Managers/1/VirtualMedia/Cd", "requests": [{"method": "POST", "path": "/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia", "body": {"Image": "http://127.0.0.1:@BMC@/m/***/boot.iso"}}]}}',NULL,NULL,1795179145585,1795179145593,'metalimmu_json','metalimmu',1795179145000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',4,'override','{"outcome": "done", "summary": "Cd Once UEFI", "evidence": {"override": true, "requests": [{"method": "PATCH", "path": "/redfish/v1/Systems/1", "body": {"Boot": {"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "UEFI"}}}]}}',NULL,NULL,1795179145605,1795179145618,'metalimmu_json','metalimmu',1795179145000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',5,'power','{"outcome": "done", "summary": "ForceRestart asked", "evidence": {"power": "On", "requests": [{"method": "POST", "path": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", "body": {"ResetType": "ForceRestart"}}]}}',NULL,NULL,1795179145620,1795179145675,'metalimmu_json','metalimmu',1795179145000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',6,'check-in','{"outcome": "done", "summary": "S0002 checked in", "evidence": {"bytes": 0, "serial": "S0002", "uuid": "00000000-0000-4000-8000-000000000002", "disks": ["/dev/vda simulated SIM-DISK-1 1099511627776"]}}',NULL,NULL,1795179145681,1795179145800,'metalimmu_json','metalimmu',1795179145000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',7,'write','{"outcome": "done", "summary": "4.2 MB fetched", "evidence": {"bytes": 4194452}}',NULL,NULL,1795179145805,1795179145868,'metalimmu_json','metalimmu',1795179145000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',8,'verify','{"outcome": "done", "summary": "read back, equal: /dev/vda, 4 chunks fetched, 0 MB zeroed", "evidence": {"report": {"disk": {"path": "/dev/vda", "size": 1099511627776, "logical_sector": 512, "physical_sector": 512, "model": "simulated", "serial": "SIM-DISK-1", "wwn": "", "transport": "virtio", "rotational": false, "removable": false, "read_only": false, "virtual": false, "by_path": "", "signatures": [], "unusable": ""}, "digest": "sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563", "read_back": "4f36930756a9b7da5f73e9d5c8c57b9bb93b79175827f091477be6b8319e2aae", "boot_id": "1aa170d9-f4b3-43a1-8aa3-feda6fa5a2cf", "chunks": 6, "fetched_chunks": 4, "fetched_bytes": 4194452, "kept_chunks": 0, "zero_bytes": 0, "seconds": {}, "config_digest": "823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd", "efi_entries": [], "resumed": 0, "fence": 2, "notes": [], "changed": []}}}',NULL,NULL,1795179145877,1795179145881,'metalimmu_json','metalimmu',1795179145000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',9,'config','{"outcome": "done", "summary": "digest 823f17270da9", "evidence": {"digest": "823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd", "efi_entries": []}}',NULL,NULL,1795179145883,1795179145909,'metalimmu_json','metalimmu',1795179145000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',10,'eject','{"outcome": "done", "summary": "media out, override cleared", "evidence": {"requests": [{"method": "POST", "path": "/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia", "body": {}}]}}',NULL,NULL,1795179145912,1795179145920,'metalimmu_json','metalimmu',1795179145000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',11,'boot','{"outcome": "done", "summary": "the agent reboots into the disk", "evidence": {}}',NULL,NULL,1795179145923,1795179146086,'metalimmu_json','metalimmu',1795179146000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',12,'report','{"outcome": "done", "summary": "web@1 on S0002", "evidence": {"image_id": "web", "image_version": "1", "build_id": "b-web@1", "serial": "S0002", "boot_id": "df744bcb-59da-4b29-8348-d89361ff1f10", "uuid": "00000000-0000-4000-8000-000000000002", "config_digest": "823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd", "note": ""}}',NULL,NULL,1795179146097,1795179146136,'metalimmu_json','metalimmu',1795179146000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',13,'prove','{"outcome": "done", "summary": "web@1 proven", "evidence": {"proof": {"run": "r-20261120-1c6791tdd", "at": 1795179146.142918, "check_in": {"serial": "S0002", "uuid": "00000000-0000-4000-8000-000000000002"}, "disks": ["/dev/vda simulated SIM-DISK-1 1099511627776"], "disk": "/dev/vda", "digest": "sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563", "read_back": "4f36930756a9b7da5f73e9d5c8c57b9bb93b79175827f091477be6b8319e2aae", "config_digest": "823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd", "system": {"image_id": "web", "image_version": "1", "build_id": "b-web@1", "serial": "S0002", "boot_id": "df744bcb-59da-4b29-8348-d89361ff1f10", "uuid": "00000000-0000-4000-8000-000000000002", "config_digest": "823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd", "note": ""}, "proof_by": "report", "media_ejected": true, "override_cleared": true, "media_bytes": 215536, "chunk_bytes": 4194452}}}',NULL,NULL,1795179146140,1795179146165,'metalimmu_json','metalimmu',1795179146000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6791tdd',14,'end','{"outcome": "done"}',NULL,NULL,1795179146173,1795179146185,'metalimmu_json','metalimmu',1795179146000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6gs1170',1,'preflight','{"outcome": "done", "summary": "Fake Fake 1 S0001", "evidence": {"serial": "S0001", "uuid": "00000000-0000-4000-8000-000000000001", "model": "Fake 1", "power": "On"}}',NULL,NULL,1795179154451,1795179154512,'metalimmu_json','metalimmu',1795179154000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6gs1170',2,'media','{"outcome": "done", "summary": "deployment r-20261120-1c6gs1170", "evidence": {"deployment": "r-20261120-1c6gs1170"}}',NULL,NULL,1795179154545,1795179154608,'metalimmu_json','metalimmu',1795179154000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6gs1170',3,'insert','{"outcome": "done", "summary": "in Cd", "evidence": {"slot": "/redfish/v1/Managers/1/VirtualMedia/Cd", "requests": [{"method": "POST", "path": "/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia", "body": {"Image": "http://127.0.0.1:@BMC@/m/***/boot.iso"}}]}}',NULL,NULL,1795179154621,1795179154659,'metalimmu_json','metalimmu',1795179154000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6gs1170',4,'override','{"outcome": "done", "summary": "Cd Once UEFI", "evidence": {"override": true, "requests": [{"method": "PATCH", "path": "/redfish/v1/Systems/1", "body": {"Boot": {"BootSourceOverrideTarget": "Cd", "BootSourceOverrideEnabled": "Once", "BootSourceOverrideMode": "UEFI"}}}]}}',NULL,NULL,1795179154677,1795179154710,'metalimmu_json','metalimmu',1795179154000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6gs1170',5,'power','{"outcome": "done", "summary": "ForceRestart asked", "evidence": {"power": "On", "requests": [{"method": "POST", "path": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset", "body": {"ResetType": "ForceRestart"}}]}}',NULL,NULL,1795179154728,1795179154804,'metalimmu_json','metalimmu',1795179154000);
INSERT INTO "operation_outputs" VALUES('r-20261120-1c6gs1170',6,'check-in','{"outcome": "done", "summary": "S0001 checked in", "evidence": {"bytes": 0, "serial": "S0001", "uuid": "00000000-0000-4000-8000-000000000001", "disks": ["/dev/vda simulated SIM-DISK-1 1099511627776"]}}',NULL,NULL,1795179154825,1795179154991,'metalimmu_json','metalimmu',1795179155000);
CREATE TABLE queues (
    queue_id TEXT PRIMARY KEY DEFAULT (hex(randomblob(16))),
    name TEXT NOT NULL UNIQUE,
    concurrency INTEGER,
    worker_concurrency INTEGER,
    rate_limit_max INTEGER,
    rate_limit_period_sec REAL,
    priority_enabled BOOLEAN NOT NULL DEFAULT FALSE,
    partition_queue BOOLEAN NOT NULL DEFAULT FALSE,
    polling_interval_sec REAL NOT NULL DEFAULT 1.0,
    created_at INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000),
    updated_at INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000)
, "application_name" TEXT DEFAULT NULL, "partition_concurrency" INTEGER DEFAULT NULL, "partition_worker_concurrency" INTEGER DEFAULT NULL, "partition_rate_limit_max" INTEGER DEFAULT NULL, "partition_rate_limit_period_sec" REAL DEFAULT NULL);
CREATE TABLE streams (
    workflow_uuid TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    "offset" INTEGER NOT NULL, function_id INTEGER NOT NULL DEFAULT 0, "serialization" TEXT DEFAULT NULL,
    PRIMARY KEY (workflow_uuid, key, "offset"),
    FOREIGN KEY (workflow_uuid) REFERENCES workflow_status(workflow_uuid) 
        ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE TABLE workflow_events (
    workflow_uuid TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL, "serialization" TEXT DEFAULT NULL,
    PRIMARY KEY (workflow_uuid, key),
    FOREIGN KEY (workflow_uuid) REFERENCES workflow_status(workflow_uuid) 
        ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE TABLE workflow_events_history (
    workflow_uuid TEXT NOT NULL,
    function_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL, "serialization" TEXT DEFAULT NULL,
    PRIMARY KEY (workflow_uuid, function_id, key),
    FOREIGN KEY (workflow_uuid) REFERENCES workflow_status(workflow_uuid)
        ON UPDATE CASCADE ON DELETE CASCADE
);
CREATE TABLE workflow_input (
    workflow_uuid TEXT NOT NULL PRIMARY KEY,
    inputs TEXT,
    retention_timestamp INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000)
);
INSERT INTO "workflow_input" VALUES('r-20261120-1c6791tdd','{"args": ["r-20261120-1c6791tdd"], "kwargs": {}}',1795179145000);
INSERT INTO "workflow_input" VALUES('r-20261120-1c6gs1170','{"args": ["r-20261120-1c6gs1170"], "kwargs": {}}',1795179154000);
CREATE TABLE workflow_output (
    workflow_uuid TEXT NOT NULL PRIMARY KEY,
    output TEXT,
    error TEXT,
    retention_timestamp INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000)
);
INSERT INTO "workflow_output" VALUES('r-20261120-1c6791tdd','null',NULL,1795179146000);
CREATE TABLE workflow_schedules (
    schedule_id TEXT PRIMARY KEY,
    schedule_name TEXT NOT NULL UNIQUE,
    workflow_name TEXT NOT NULL,
    workflow_class_name TEXT,
    schedule TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'ACTIVE',
    context TEXT NOT NULL
, "last_fired_at" TEXT DEFAULT NULL, "automatic_backfill" BOOLEAN NOT NULL DEFAULT FALSE, "cron_timezone" TEXT DEFAULT NULL, "queue_name" TEXT DEFAULT NULL, "application_name" TEXT DEFAULT NULL);
CREATE TABLE workflow_status (
    workflow_uuid TEXT PRIMARY KEY,
    status TEXT,
    name TEXT,
    authenticated_user TEXT,
    assumed_role TEXT,
    authenticated_roles TEXT,
    request TEXT,
    output TEXT,
    error TEXT,
    executor_id TEXT,
    created_at INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000),
    updated_at INTEGER NOT NULL DEFAULT (strftime('%s','now') * 1000),
    application_version TEXT,
    application_id TEXT,
    class_name TEXT DEFAULT NULL,
    config_name TEXT DEFAULT NULL,
    recovery_attempts INTEGER DEFAULT 0,
    queue_name TEXT,
    workflow_timeout_ms INTEGER,
    workflow_deadline_epoch_ms INTEGER,
    inputs TEXT,
    started_at_epoch_ms INTEGER,
    deduplication_id TEXT,
    priority INTEGER NOT NULL DEFAULT 0
, queue_partition_key TEXT, forked_from TEXT, "owner_xid" TEXT DEFAULT NULL, "parent_workflow_id" TEXT DEFAULT NULL, "serialization" TEXT DEFAULT NULL, "delay_until_epoch_ms" BIGINT DEFAULT NULL, "was_forked_from" BOOLEAN NOT NULL DEFAULT FALSE, "rate_limited" BOOLEAN NOT NULL DEFAULT FALSE, "completed_at" BIGINT, "attributes" TEXT, "schedule_name" TEXT, "debounce_deadline_epoch_ms" BIGINT DEFAULT NULL, "is_debounced" BOOLEAN NOT NULL DEFAULT FALSE, "application_name" TEXT DEFAULT NULL, "creator_xid" TEXT DEFAULT NULL);
INSERT INTO "workflow_status" VALUES('r-20261120-1c6791tdd','SUCCESS','run',NULL,NULL,NULL,NULL,NULL,NULL,'worker-5540cd2a3508',1795179145000,1795179146000,'1','',NULL,NULL,1,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,'metalimmu_json',NULL,0,0,1795179146000,'null',NULL,NULL,0,'metalimmu','f5d1e4e5-3465-4b88-ace4-8545d1682ed7');
INSERT INTO "workflow_status" VALUES('r-20261120-1c6gs1170','PENDING','run',NULL,NULL,NULL,NULL,NULL,NULL,'worker-9a102280b7a7',1795179154000,1795179154000,'1','',NULL,NULL,1,NULL,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,'bddeed6a-2571-4225-8d0a-6aa3ee589587',NULL,'metalimmu_json',NULL,0,0,NULL,'null',NULL,NULL,0,'metalimmu','bddeed6a-2571-4225-8d0a-6aa3ee589587');
CREATE INDEX workflow_status_created_at_index ON workflow_status (created_at);
CREATE INDEX idx_workflow_topic ON notifications (destination_uuid, topic);
CREATE INDEX "idx_workflow_status_delayed" ON "workflow_status" ("delay_until_epoch_ms") WHERE status = 'DELAYED';
CREATE INDEX "idx_workflow_status_forked_from" ON "workflow_status" ("forked_from") WHERE "forked_from" IS NOT NULL;
CREATE INDEX "idx_workflow_status_parent_workflow_id" ON "workflow_status" ("parent_workflow_id") WHERE "parent_workflow_id" IS NOT NULL;
CREATE UNIQUE INDEX "uq_workflow_status_dedup_id" ON "workflow_status" ("queue_name", "deduplication_id") WHERE "deduplication_id" IS NOT NULL;
CREATE INDEX "idx_workflow_status_pending" ON "workflow_status" ("created_at") WHERE "status" = 'PENDING';
CREATE INDEX "idx_workflow_status_failed" ON "workflow_status" ("status", "created_at") WHERE "status" IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED');
CREATE INDEX "idx_workflow_status_rate_limited" ON "workflow_status" ("queue_name", "started_at_epoch_ms") WHERE "rate_limited" = TRUE;
CREATE INDEX "idx_workflow_status_completed_at" ON "workflow_status" ("completed_at") WHERE "completed_at" IS NOT NULL;
CREATE INDEX "idx_workflow_status_started_at" ON "workflow_status" ("started_at_epoch_ms") WHERE "started_at_epoch_ms" IS NOT NULL;
CREATE INDEX "idx_workflow_status_schedule_name" ON "workflow_status" ("schedule_name") WHERE "schedule_name" IS NOT NULL;
CREATE UNIQUE INDEX "uq_application_versions_owner_version"
    ON application_versions ("application_name", "version_name")
    WHERE "application_name" IS NOT NULL;
CREATE UNIQUE INDEX "uq_application_versions_unclaimed_version"
    ON application_versions ("version_name")
    WHERE "application_name" IS NULL;
CREATE INDEX idx_workflow_input_retention
    ON workflow_input (retention_timestamp);
CREATE INDEX idx_workflow_output_retention
    ON workflow_output (retention_timestamp);
CREATE INDEX idx_operation_outputs_retention
    ON operation_outputs (retention_timestamp);
CREATE INDEX "idx_workflow_status_in_flight_v2" ON "workflow_status" ("queue_name", "status", "priority", "created_at", "application_name") WHERE "status" IN ('ENQUEUED', 'PENDING');
CREATE INDEX "idx_workflow_status_partition_dequeue_v3" ON "workflow_status" ("queue_name", "status", "queue_partition_key", "priority", "created_at", "workflow_uuid", "application_name") WHERE "status" IN ('ENQUEUED', 'PENDING') AND "queue_partition_key" IS NOT NULL;
CREATE INDEX "idx_operation_outputs_completed_at_function_name_v2" ON "operation_outputs" ("completed_at_epoch_ms", "function_name", "application_name");
CREATE INDEX "idx_workflow_status_deadline" ON "workflow_status" ("workflow_deadline_epoch_ms") WHERE "status" IN ('ENQUEUED', 'PENDING', 'DELAYED') AND "workflow_deadline_epoch_ms" IS NOT NULL;
CREATE INDEX "idx_application_versions_timestamp" ON "application_versions" ("version_timestamp" DESC);
CREATE INDEX "idx_application_versions_owner_timestamp" ON "application_versions" ("application_name", "version_timestamp" DESC);
COMMIT;
