BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'metalimmu','m001_hosts','2026-11-20 12:52:21.334323+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'metalimmu','m002_runs','2026-11-20 12:52:21.334987+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'metalimmu','m003_deployments','2026-11-20 12:52:21.335770+00:00');
INSERT INTO "_sqlite_migrations" VALUES(4,'metalimmu','m004_history','2026-11-20 12:52:21.336512+00:00');
CREATE TABLE "deployments" (
   "id" TEXT PRIMARY KEY,
   "run" TEXT,
   "host" TEXT,
   "token_hash" TEXT,
   "proof_hash" TEXT,
   "media_hash" TEXT,
   "chunk_hash" TEXT,
   "assignment" TEXT,
   "fence" INTEGER,
   "config" TEXT,
   "config_digest" TEXT,
   "proof_by" TEXT,
   "stage" TEXT,
   "go" INTEGER,
   "went" REAL,
   "stop" TEXT,
   "intent" TEXT,
   "intent_at" REAL,
   "check_in" TEXT,
   "checked_in" REAL,
   "boot_ids" TEXT,
   "last_seen" REAL,
   "progress" TEXT,
   "progressed" REAL,
   "report" TEXT,
   "read_back_ok" INTEGER,
   "written" REAL,
   "failure" TEXT,
   "refusal" TEXT,
   "refused_at" REAL,
   "system" TEXT,
   "system_ok" INTEGER,
   "system_why" TEXT,
   "system_at" REAL,
   "media_bytes" INTEGER,
   "chunk_bytes" INTEGER,
   "created" REAL,
   "ended" REAL
);
INSERT INTO "deployments" VALUES('r-20261120-1c6791tdd','r-20261120-1c6791tdd','node-2','34de65d3576850215cec5a5eb033fbe6ea538dfc7bdf90bbec8fdb8e60bf330a','b93b4a9ed77b92f016394a4c81822252b8921aacd6e40f809f5ba7d9b5a7739e','d84b5fe6431da24f1254bf3c13d501a2316d7e822bf7a44656d06a4bbd5ad3ea','3364d0c166d36c5148ae0a3f0e5ec24a62c50dee22534edbb6c45917aafbe95f','{"deployment":"r-20261120-1c6791tdd","fence":2,"stage":"write","image":"web@1","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","chunk_base":"","serial":"S0002","uuid":"00000000-0000-4000-8000-000000000002","nics":["52:54:00:00:00:02"],"root_disk":{"serial":null,"wwn":null,"model":null,"min_size":null,"max_size":null,"rotational":null,"by_path":null},"previous_digest":null,"wipe_signatures":false,"clock":0.0,"host":"node-2","efi_label":"metalimmu web@1","own_efi_entries":[],"parallel":4}',2,'{"files":[{"path":"meta-data","content":"instance-id: node-2-r-20261120-1c6791tdd\nlocal-hostname: node-2\n"},{"path":"network-config","content":"version: 2\nethernets:\n  nic0:\n    match:\n      macaddress: ''52:54:00:00:00:02''\n    dhcp4: true\n"},{"path":"user-data","content":"#cloud-config\nhostname: node-2\nmanage_etc_hosts: true\n"}],"digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd"}','823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd','report','wait',1,1.79517914608322095865e+09,'','ForceRestart asked',1.79517914564090967175e+09,'{"identity":{"serial":"S0002","uuid":"00000000-0000-4000-8000-000000000002","vendor":"Fake","product":"Fake 1","nics":[{"name":"eth0","mac":"52:54:00:00:00:02","link":true,"driver":"","speed":0}]},"architecture":"x86_64","firmware":"uefi","boot_id":"1aa170d9-f4b3-43a1-8aa3-feda6fa5a2cf","agent_version":"simulated","secure_boot":null,"memory":1073741824,"clock":1795179145.7454474,"disks":[{"path":"/dev/vda","size":1099511627776,"logical_sector":512,"physical_sector":512,"model":"simulated","serial":"SIM-DISK-1","wwn":"","transport":"virtio","rotational":false,"removable":false,"read_only":false,"virtual":false,"by_path":"","signatures":[],"unusable":""}],"fence":0,"protocol":1}',1.7951791457757790088e+09,'["1aa170d9-f4b3-43a1-8aa3-feda6fa5a2cf"]',1.79517914608319282534e+09,'{"phase":"wait","done":0,"total":0,"fetched_bytes":4194452,"log":[],"fence":2,"boot_id":"1aa170d9-f4b3-43a1-8aa3-feda6fa5a2cf"}',1.79517914587959742547e+09,'{"disk":{"path":"/dev/vda","size":1099511627776,"logical_sector":512,"physical_sector":512,"model":"simulated","serial":"SIM-DISK-1","wwn":"","transport":"virtio","rotational":false,"removable":false,"read_only":false,"virtual":false,"by_path":"","signatures":[],"unusable":""},"digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","read_back":"4f36930756a9b7da5f73e9d5c8c57b9bb93b79175827f091477be6b8319e2aae","boot_id":"1aa170d9-f4b3-43a1-8aa3-feda6fa5a2cf","chunks":6,"fetched_chunks":4,"fetched_bytes":4194452,"kept_chunks":0,"zero_bytes":0,"seconds":{},"config_digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","efi_entries":[],"resumed":0,"fence":2,"notes":[],"changed":[]}',1,1.79517914587272858621e+09,NULL,NULL,NULL,'{"image_id":"web","image_version":"1","build_id":"b-web@1","serial":"S0002","boot_id":"df744bcb-59da-4b29-8348-d89361ff1f10","uuid":"00000000-0000-4000-8000-000000000002","config_digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","note":""}',1,'',1.79517914613433957103e+09,215536,4194452,1.79517914140922474862e+09,1.79517914615297222136e+09);
INSERT INTO "deployments" VALUES('r-20261120-1c6gs1170','r-20261120-1c6gs1170','node-1','d7000f3f3f06e1229618c545439e5f33738270242ad3c95f393f89f4e6639107','6c5182b57e3412116ec447e826c9e4acbefedf19592079dba7127229ca3f75cc','14bb63c32b192ab3d35dd453dd07d35be4d4360cdac3fb626354e5fc50313c31','263688f438c0c7865f07474ab90fb4ff84f11de17680c723a1cbfd82804559c2','{"deployment":"r-20261120-1c6gs1170","fence":2,"stage":"write","image":"web@1","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","chunk_base":"","serial":"S0001","uuid":"00000000-0000-4000-8000-000000000001","nics":["52:54:00:00:00:01"],"root_disk":{"serial":null,"wwn":null,"model":null,"min_size":null,"max_size":null,"rotational":null,"by_path":null},"previous_digest":null,"wipe_signatures":false,"clock":0.0,"host":"node-1","efi_label":"metalimmu web@1","own_efi_entries":[],"parallel":4}',2,'{"files":[{"path":"meta-data","content":"instance-id: node-1-r-20261120-1c6gs1170\nlocal-hostname: node-1\n"},{"path":"network-config","content":"version: 2\nethernets:\n  nic0:\n    match:\n      macaddress: ''52:54:00:00:00:01''\n    dhcp4: true\n"},{"path":"user-data","content":"#cloud-config\nhostname: node-1\nmanage_etc_hosts: true\n"}],"digest":"3c1c89bd1a37ec588fa8863a6a9d50f5f8da15b6db7df748230caedfeea3cf90"}','3c1c89bd1a37ec588fa8863a6a9d50f5f8da15b6db7df748230caedfeea3cf90','report','write',0,NULL,'','ForceRestart asked',1795179154.75545,'{"identity":{"serial":"S0001","uuid":"00000000-0000-4000-8000-000000000001","vendor":"Fake","product":"Fake 1","nics":[{"name":"eth0","mac":"52:54:00:00:00:01","link":true,"driver":"","speed":0}]},"architecture":"x86_64","firmware":"uefi","boot_id":"6cee8d7e-75b9-4304-8f52-0fda84e5346a","agent_version":"simulated","secure_boot":null,"memory":1073741824,"clock":1795179154.8931751,"disks":[{"path":"/dev/vda","size":1099511627776,"logical_sector":512,"physical_sector":512,"model":"simulated","serial":"SIM-DISK-1","wwn":"","transport":"virtio","rotational":false,"removable":false,"read_only":false,"virtual":false,"by_path":"","signatures":[],"unusable":""}],"fence":0,"protocol":1}',1.79517915493281388279e+09,'["6cee8d7e-75b9-4304-8f52-0fda84e5346a"]',1.79517915505177211767e+09,'{"phase":"write","done":0,"total":6291456,"fetched_bytes":1048613,"log":[],"fence":2,"boot_id":"6cee8d7e-75b9-4304-8f52-0fda84e5346a"}',1.79517915505177211767e+09,NULL,NULL,NULL,NULL,NULL,NULL,NULL,0,'',NULL,215536,1048613,1.79517915113715362546e+09,NULL);
CREATE TABLE "events" (
   "id" INTEGER PRIMARY KEY,
   "at" REAL,
   "host" TEXT,
   "run" TEXT,
   "kind" TEXT,
   "text" TEXT,
   "data" TEXT,
   "key" TEXT
);
INSERT INTO "events" VALUES(1,1.79517914144506192204e+09,'node-2','r-20261120-1c6791tdd','run','reimage to web@1 asked by admin@controller: nothing is known of what node-2 carries; web@1 is wanted','{}',NULL);
INSERT INTO "events" VALUES(2,1.7951791455731773376e+09,'node-2','r-20261120-1c6791tdd','deploying','deployment of web@1 begins','{"image":"web@1","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563"}',NULL);
INSERT INTO "events" VALUES(3,1.79517914584592509262e+09,'node-2','r-20261120-1c6791tdd','agent','identify 0/0','{}',NULL);
INSERT INTO "events" VALUES(4,1.79517914585214161875e+09,'node-2','r-20261120-1c6791tdd','agent','write 0/6291456','{}',NULL);
INSERT INTO "events" VALUES(5,1.79517914586140179631e+09,'node-2','r-20261120-1c6791tdd','agent','read-back 0/6291456','{}',NULL);
INSERT INTO "events" VALUES(6,1.79517914586914682385e+09,'node-2','r-20261120-1c6791tdd','agent','config 0/0','{}',NULL);
INSERT INTO "events" VALUES(7,1.79517914588002300258e+09,'node-2','r-20261120-1c6791tdd','agent','wait 0/0','{}',NULL);
INSERT INTO "events" VALUES(8,1795179146.15586,'node-2','r-20261120-1c6791tdd','proven','node-2 is proven at web@1','{"evidence":{"run":"r-20261120-1c6791tdd","at":1795179146.142918,"check_in":{"serial":"S0002","uuid":"00000000-0000-4000-8000-000000000002"},"disks":["/dev/vda simulated SIM-DISK-1 1099511627776"],"disk":"/dev/vda","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","read_back":"4f36930756a9b7da5f73e9d5c8c57b9bb93b79175827f091477be6b8319e2aae","config_digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","system":{"image_id":"web","image_version":"1","build_id":"b-web@1","serial":"S0002","boot_id":"df744bcb-59da-4b29-8348-d89361ff1f10","uuid":"00000000-0000-4000-8000-000000000002","config_digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","note":""},"proof_by":"report","media_ejected":true,"override_cleared":true,"media_bytes":215536,"chunk_bytes":4194452}}',NULL);
INSERT INTO "events" VALUES(9,1.79517914693679213528e+09,'node-2','r-20261120-1c6791tdd','agent','wait 0/0','{}',NULL);
INSERT INTO "events" VALUES(10,1.79517915115100193021e+09,'node-1','r-20261120-1c6gs1170','run','reimage to web@1 asked by admin@controller: nothing is known of what node-1 carries; web@1 is wanted','{}',NULL);
INSERT INTO "events" VALUES(11,1.79517915458909630777e+09,'node-1','r-20261120-1c6gs1170','deploying','deployment of web@1 begins','{"image":"web@1","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563"}',NULL);
INSERT INTO "events" VALUES(12,1.79517915502610182765e+09,'node-1','r-20261120-1c6gs1170','agent','identify 0/0','{}',NULL);
INSERT INTO "events" VALUES(13,1.79517915505222892761e+09,'node-1','r-20261120-1c6gs1170','agent','write 0/6291456','{}',NULL);
INSERT INTO "events" VALUES(14,1.79517915602117800709e+09,'node-3','r-20261120-1c6nh5e5x','run','reimage to web@1 asked by admin@controller: nothing is known of what node-3 carries; web@1 is wanted','{}',NULL);
CREATE TABLE "hosts" (
   "name" TEXT PRIMARY KEY,
   "state" TEXT,
   "proof" TEXT,
   "proof_evidence" TEXT,
   "proven_at" REAL,
   "image" TEXT,
   "digest" TEXT,
   "previous_image" TEXT,
   "previous_digest" TEXT,
   "power" TEXT,
   "power_at" REAL,
   "error" TEXT,
   "quarantine" TEXT,
   "maintenance" TEXT,
   "efi_entries" TEXT,
   "updated" REAL
);
INSERT INTO "hosts" VALUES('node-2','active','proven','{"run":"r-20261120-1c6791tdd","at":1795179146.142918,"check_in":{"serial":"S0002","uuid":"00000000-0000-4000-8000-000000000002"},"disks":["/dev/vda simulated SIM-DISK-1 1099511627776"],"disk":"/dev/vda","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","read_back":"4f36930756a9b7da5f73e9d5c8c57b9bb93b79175827f091477be6b8319e2aae","config_digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","system":{"image_id":"web","image_version":"1","build_id":"b-web@1","serial":"S0002","boot_id":"df744bcb-59da-4b29-8348-d89361ff1f10","uuid":"00000000-0000-4000-8000-000000000002","config_digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","note":""},"proof_by":"report","media_ejected":true,"override_cleared":true,"media_bytes":215536,"chunk_bytes":4194452}',1.79517914614301872253e+09,'web@1','sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563',NULL,NULL,NULL,NULL,NULL,NULL,NULL,'["metalimmu web@1"]',1.79517914614317154881e+09);
INSERT INTO "hosts" VALUES('node-1','deploying','unproven','{}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,'[]',1.79517915474545621868e+09);
CREATE TABLE "leases" (
   "host" TEXT PRIMARY KEY,
   "fence" INTEGER,
   "run" TEXT,
   "holder" TEXT,
   "since" REAL
);
INSERT INTO "leases" VALUES('node-2',2,NULL,'',1.79517914550353336333e+09);
INSERT INTO "leases" VALUES('node-1',2,'r-20261120-1c6gs1170','worker-9a102280b7a7',1.79517915441584873198e+09);
INSERT INTO "leases" VALUES('node-3',1,'r-20261120-1c6nh5e5x','admin@controller',1.79517915600594019889e+09);
CREATE TABLE "logins" (
   "bmc" TEXT,
   "version" TEXT,
   "at" REAL,
   PRIMARY KEY ("bmc", "version")
);
CREATE TABLE "observations" (
   "id" INTEGER PRIMARY KEY,
   "host" TEXT,
   "kind" TEXT,
   "data" TEXT,
   "at" REAL,
   "seen" REAL
);
INSERT INTO "observations" VALUES(1,'node-2','boot','{"identity":{"system_id":"1","uri":"/redfish/v1/Systems/1","manufacturer":"Fake","model":"Fake 1","serial":"S0002","sku":"","uuid":"00000000-0000-4000-8000-000000000002","bios_version":"","hostname":"","asset_tag":"","nics":["52:54:00:00:00:02"]},"power":"On","boot":{"enabled":"Disabled","target":"None","mode":"UEFI","once_allowed":true,"continuous_allowed":true},"media":[{"id":"Cd","uri":"/redfish/v1/Managers/1/VirtualMedia/Cd","media_types":["CD","DVD"],"inserted":false,"image":null,"by_action":true,"can_eject":true}]}',1.79517914140123844147e+09,1.79517914140123844147e+09);
INSERT INTO "observations" VALUES(2,'node-1','boot','{"identity":{"system_id":"1","uri":"/redfish/v1/Systems/1","manufacturer":"Fake","model":"Fake 1","serial":"S0001","sku":"","uuid":"00000000-0000-4000-8000-000000000001","bios_version":"","hostname":"","asset_tag":"","nics":["52:54:00:00:00:01"]},"power":"On","boot":{"enabled":"Disabled","target":"None","mode":"UEFI","once_allowed":true,"continuous_allowed":true},"media":[{"id":"Cd","uri":"/redfish/v1/Managers/1/VirtualMedia/Cd","media_types":["CD","DVD"],"inserted":false,"image":null,"by_action":true,"can_eject":true}]}',1.79517915112681269648e+09,1.79517915112681269648e+09);
INSERT INTO "observations" VALUES(3,'node-3','boot','{"identity":{"system_id":"1","uri":"/redfish/v1/Systems/1","manufacturer":"Fake","model":"Fake 1","serial":"S0003","sku":"","uuid":"00000000-0000-4000-8000-000000000003","bios_version":"","hostname":"","asset_tag":"","nics":["52:54:00:00:00:03"]},"power":"On","boot":{"enabled":"Disabled","target":"None","mode":"UEFI","once_allowed":true,"continuous_allowed":true},"media":[{"id":"Cd","uri":"/redfish/v1/Managers/1/VirtualMedia/Cd","media_types":["CD","DVD"],"inserted":false,"image":null,"by_action":true,"can_eject":true}]}',1.79517915598852252959e+09,1.79517915598852252959e+09);
CREATE TABLE "runs" (
   "id" TEXT PRIMARY KEY,
   "verb" TEXT,
   "host" TEXT,
   "plan" TEXT,
   "options" TEXT,
   "status" TEXT,
   "created" REAL,
   "started" REAL,
   "finished" REAL,
   "error" TEXT,
   "worker" TEXT,
   "cancel_requested" INTEGER
);
INSERT INTO "runs" VALUES('r-20261120-1c6791tdd','reimage','node-2','{"verb":"reimage","host":"node-2","spec":{"name":"node-2","bmc":"fake://@FOLDER@/machines/node-2.json","system":null,"serial":"S0002","credentials":null,"tls":{},"proxy":null,"connect_timeout":10.0,"read_timeout":60.0,"mode":"read-write","nics":["52:54:00:00:00:02"],"network":{},"role":"web","pool":null,"image":"web@1","digest":null,"held":null,"boot":"auto","firmware":"uefi","ramdisk":"fake","root_disk":{"serial":null,"wwn":null,"model":null,"min_size":null,"max_size":null,"rotational":null,"by_path":null},"wipe_signatures":false,"proof":{},"templates":{},"template_files":{},"vars":{},"labels":{"name":"node-2","kind":"server","role":"web"},"protected":false,"limits":{"power":10.0,"media":10.0,"check_in":20.0,"stall":10.0,"phone_home":20.0,"bmc":15.0,"report_again":300.0}},"image":{"ref":"web@1","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","kind":"disk","architecture":"x86_64","firmware":["uefi","bios"],"size":6291456,"all_bytes":4194452,"build_id":"b-web@1","revoked":null},"previous":null,"previous_digest":null,"identity":{"system_id":"1","uri":"/redfish/v1/Systems/1","manufacturer":"Fake","model":"Fake 1","serial":"S0002","sku":"","uuid":"00000000-0000-4000-8000-000000000002","bios_version":"","hostname":"","asset_tag":"","nics":["52:54:00:00:00:02"]},"method":"virtual-media","why":"nothing is known of what node-2 carries; web@1 is wanted","findings":[{"setting":"image","word":"unknown","expected":"web@1","actual":"","reason":"","source":"store","at":0.0,"host":"","severity":"","owner":"","profile":"","waived":""},{"setting":"proof","word":"unknown","expected":"proven","actual":"unproven","reason":"","source":"","at":0.0,"host":"","severity":"","owner":"","profile":"","waived":""},{"setting":"serial","word":"match","expected":"S0002","actual":"S0002","reason":"","source":"/redfish/v1/Systems/1","at":0.0,"host":"","severity":"","owner":"","profile":"","waived":""}],"steps":[{"name":"preflight","title":"look at host, image and config","limit":15.0,"stall":null,"seconds":5.0,"boots":0,"requests":[],"if_needed":[]},{"name":"media","title":"prepare boot media and deployment","limit":15.0,"stall":null,"seconds":1.0,"boots":0,"requests":[],"if_needed":[]},{"name":"insert","title":"insert virtual media","limit":10.0,"stall":null,"seconds":10.0,"boots":0,"requests":[{"method":"POST","path":"/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia","body":{"Image":"http://127.0.0.1:@BMC@/m/<media URL of the deployment>/boot.iso"}}],"if_needed":[]},{"name":"override","title":"boot once from the media","limit":10.0,"stall":null,"seconds":5.0,"boots":0,"requests":[{"method":"PATCH","path":"/redfish/v1/Systems/1","body":{"Boot":{"BootSourceOverrideTarget":"Cd","BootSourceOverrideEnabled":"Once","BootSourceOverrideMode":"UEFI"}}}],"if_needed":[]},{"name":"power","title":"start the machine","limit":10.0,"stall":null,"seconds":10.0,"boots":1,"requests":[{"method":"POST","path":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset","body":{"ResetType":"ForceRestart"}}],"if_needed":[]},{"name":"check-in","title":"ramdisk checks in","limit":20.0,"stall":null,"seconds":240.0,"boots":0,"requests":[],"if_needed":[]},{"name":"write","title":"write the image","limit":86400.0,"stall":10.0,"seconds":0.0,"boots":0,"requests":[],"if_needed":[]},{"name":"verify","title":"read the disk back","limit":86400.0,"stall":10.0,"seconds":0.0,"boots":0,"requests":[],"if_needed":[]},{"name":"config","title":"write run-time config","limit":10.0,"stall":10.0,"seconds":2.0,"boots":0,"requests":[],"if_needed":[]},{"name":"eject","title":"eject media, clear the override","limit":25.0,"stall":null,"seconds":10.0,"boots":0,"requests":[{"method":"POST","path":"/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia","body":{}}],"if_needed":[{"method":"PATCH","path":"/redfish/v1/Systems/1","body":{"Boot":{"BootSourceOverrideTarget":"None","BootSourceOverrideEnabled":"Disabled"}}}]},{"name":"boot","title":"let the machine boot its disk","limit":10.0,"stall":null,"seconds":5.0,"boots":1,"requests":[],"if_needed":[]},{"name":"report","title":"new system reports","limit":20.0,"stall":null,"seconds":240.0,"boots":0,"requests":[],"if_needed":[]},{"name":"prove","title":"prove and record","limit":15.0,"stall":null,"seconds":5.0,"boots":0,"requests":[],"if_needed":[]}],"transfer":4194452,"slot":{"id":"Cd","uri":"/redfish/v1/Managers/1/VirtualMedia/Cd","media_types":["CD","DVD"],"inserted":false,"image":null,"by_action":true,"can_eject":true},"warnings":["the machine is on and will be reset without a shutdown","the disk''s content is not known to us: everything is written"],"created":1795179141.4092247}','{"by":"admin@controller"}','succeeded',1.79517914143306684488e+09,1.79517914550687146188e+09,1.79517914617383217814e+09,NULL,'worker-5540cd2a3508',0);
INSERT INTO "runs" VALUES('r-20261120-1c6gs1170','reimage','node-1','{"verb":"reimage","host":"node-1","spec":{"name":"node-1","bmc":"fake://@FOLDER@/machines/node-1.json","system":null,"serial":"S0001","credentials":null,"tls":{},"proxy":null,"connect_timeout":10.0,"read_timeout":60.0,"mode":"read-write","nics":["52:54:00:00:00:01"],"network":{},"role":"web","pool":null,"image":"web@1","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","held":null,"boot":"auto","firmware":"uefi","ramdisk":"fake","root_disk":{"serial":null,"wwn":null,"model":null,"min_size":null,"max_size":null,"rotational":null,"by_path":null},"wipe_signatures":false,"proof":{},"templates":{},"template_files":{},"vars":{},"labels":{"name":"node-1","kind":"server","role":"web"},"protected":false,"limits":{"power":10.0,"media":10.0,"check_in":20.0,"stall":10.0,"phone_home":20.0,"bmc":15.0,"report_again":300.0}},"image":{"ref":"web@1","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","kind":"disk","architecture":"x86_64","firmware":["uefi","bios"],"size":6291456,"all_bytes":4194452,"build_id":"b-web@1","revoked":null},"previous":null,"previous_digest":null,"identity":{"system_id":"1","uri":"/redfish/v1/Systems/1","manufacturer":"Fake","model":"Fake 1","serial":"S0001","sku":"","uuid":"00000000-0000-4000-8000-000000000001","bios_version":"","hostname":"","asset_tag":"","nics":["52:54:00:00:00:01"]},"method":"virtual-media","why":"nothing is known of what node-1 carries; web@1 is wanted","findings":[{"setting":"image","word":"unknown","expected":"web@1","actual":"","reason":"","source":"store","at":0.0,"host":"","severity":"","owner":"","profile":"","waived":""},{"setting":"proof","word":"unknown","expected":"proven","actual":"unproven","reason":"","source":"","at":0.0,"host":"","severity":"","owner":"","profile":"","waived":""},{"setting":"serial","word":"match","expected":"S0001","actual":"S0001","reason":"","source":"/redfish/v1/Systems/1","at":0.0,"host":"","severity":"","owner":"","profile":"","waived":""}],"steps":[{"name":"preflight","title":"look at host, image and config","limit":15.0,"stall":null,"seconds":5.0,"boots":0,"requests":[],"if_needed":[]},{"name":"media","title":"prepare boot media and deployment","limit":15.0,"stall":null,"seconds":1.0,"boots":0,"requests":[],"if_needed":[]},{"name":"insert","title":"insert virtual media","limit":10.0,"stall":null,"seconds":10.0,"boots":0,"requests":[{"method":"POST","path":"/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia","body":{"Image":"http://127.0.0.1:@BMC@/m/<media URL of the deployment>/boot.iso"}}],"if_needed":[]},{"name":"override","title":"boot once from the media","limit":10.0,"stall":null,"seconds":5.0,"boots":0,"requests":[{"method":"PATCH","path":"/redfish/v1/Systems/1","body":{"Boot":{"BootSourceOverrideTarget":"Cd","BootSourceOverrideEnabled":"Once","BootSourceOverrideMode":"UEFI"}}}],"if_needed":[]},{"name":"power","title":"start the machine","limit":10.0,"stall":null,"seconds":10.0,"boots":1,"requests":[{"method":"POST","path":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset","body":{"ResetType":"ForceRestart"}}],"if_needed":[]},{"name":"check-in","title":"ramdisk checks in","limit":20.0,"stall":null,"seconds":240.0,"boots":0,"requests":[],"if_needed":[]},{"name":"write","title":"write the image","limit":86400.0,"stall":10.0,"seconds":0.0,"boots":0,"requests":[],"if_needed":[]},{"name":"verify","title":"read the disk back","limit":86400.0,"stall":10.0,"seconds":0.0,"boots":0,"requests":[],"if_needed":[]},{"name":"config","title":"write run-time config","limit":10.0,"stall":10.0,"seconds":2.0,"boots":0,"requests":[],"if_needed":[]},{"name":"eject","title":"eject media, clear the override","limit":25.0,"stall":null,"seconds":10.0,"boots":0,"requests":[{"method":"POST","path":"/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia","body":{}}],"if_needed":[{"method":"PATCH","path":"/redfish/v1/Systems/1","body":{"Boot":{"BootSourceOverrideTarget":"None","BootSourceOverrideEnabled":"Disabled"}}}]},{"name":"boot","title":"let the machine boot its disk","limit":10.0,"stall":null,"seconds":5.0,"boots":1,"requests":[],"if_needed":[]},{"name":"report","title":"new system reports","limit":20.0,"stall":null,"seconds":240.0,"boots":0,"requests":[],"if_needed":[]},{"name":"prove","title":"prove and record","limit":15.0,"stall":null,"seconds":5.0,"boots":0,"requests":[],"if_needed":[]}],"transfer":4194452,"slot":{"id":"Cd","uri":"/redfish/v1/Managers/1/VirtualMedia/Cd","media_types":["CD","DVD"],"inserted":false,"image":null,"by_action":true,"can_eject":true},"warnings":["the machine is on and will be reset without a shutdown","the disk''s content is not known to us: everything is written"],"created":1795179151.1371536}','{"by":"admin@controller"}','running',1.79517915114503955843e+09,1.79517915443347764016e+09,NULL,NULL,'worker-9a102280b7a7',0);
INSERT INTO "runs" VALUES('r-20261120-1c6nh5e5x','reimage','node-3','{"verb":"reimage","host":"node-3","spec":{"name":"node-3","bmc":"fake://@FOLDER@/machines/node-3.json","system":null,"serial":"S0003","credentials":null,"tls":{},"proxy":null,"connect_timeout":10.0,"read_timeout":60.0,"mode":"read-write","nics":["52:54:00:00:00:03"],"network":{},"role":"web","pool":null,"image":"web@1","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","held":null,"boot":"auto","firmware":"uefi","ramdisk":"fake","root_disk":{"serial":null,"wwn":null,"model":null,"min_size":null,"max_size":null,"rotational":null,"by_path":null},"wipe_signatures":false,"proof":{},"templates":{},"template_files":{},"vars":{},"labels":{"name":"node-3","kind":"server","role":"web"},"protected":false,"limits":{"power":10.0,"media":10.0,"check_in":20.0,"stall":10.0,"phone_home":20.0,"bmc":15.0,"report_again":300.0}},"image":{"ref":"web@1","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","kind":"disk","architecture":"x86_64","firmware":["uefi","bios"],"size":6291456,"all_bytes":4194452,"build_id":"b-web@1","revoked":null},"previous":null,"previous_digest":null,"identity":{"system_id":"1","uri":"/redfish/v1/Systems/1","manufacturer":"Fake","model":"Fake 1","serial":"S0003","sku":"","uuid":"00000000-0000-4000-8000-000000000003","bios_version":"","hostname":"","asset_tag":"","nics":["52:54:00:00:00:03"]},"method":"virtual-media","why":"nothing is known of what node-3 carries; web@1 is wanted","findings":[{"setting":"image","word":"unknown","expected":"web@1","actual":"","reason":"","source":"store","at":0.0,"host":"","severity":"","owner":"","profile":"","waived":""},{"setting":"proof","word":"unknown","expected":"proven","actual":"unproven","reason":"","source":"","at":0.0,"host":"","severity":"","owner":"","profile":"","waived":""},{"setting":"serial","word":"match","expected":"S0003","actual":"S0003","reason":"","source":"/redfish/v1/Systems/1","at":0.0,"host":"","severity":"","owner":"","profile":"","waived":""}],"steps":[{"name":"preflight","title":"look at host, image and config","limit":15.0,"stall":null,"seconds":5.0,"boots":0,"requests":[],"if_needed":[]},{"name":"media","title":"prepare boot media and deployment","limit":15.0,"stall":null,"seconds":1.0,"boots":0,"requests":[],"if_needed":[]},{"name":"insert","title":"insert virtual media","limit":10.0,"stall":null,"seconds":10.0,"boots":0,"requests":[{"method":"POST","path":"/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia","body":{"Image":"http://127.0.0.1:@BMC@/m/<media URL of the deployment>/boot.iso"}}],"if_needed":[]},{"name":"override","title":"boot once from the media","limit":10.0,"stall":null,"seconds":5.0,"boots":0,"requests":[{"method":"PATCH","path":"/redfish/v1/Systems/1","body":{"Boot":{"BootSourceOverrideTarget":"Cd","BootSourceOverrideEnabled":"Once","BootSourceOverrideMode":"UEFI"}}}],"if_needed":[]},{"name":"power","title":"start the machine","limit":10.0,"stall":null,"seconds":10.0,"boots":1,"requests":[{"method":"POST","path":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset","body":{"ResetType":"ForceRestart"}}],"if_needed":[]},{"name":"check-in","title":"ramdisk checks in","limit":20.0,"stall":null,"seconds":240.0,"boots":0,"requests":[],"if_needed":[]},{"name":"write","title":"write the image","limit":86400.0,"stall":10.0,"seconds":0.0,"boots":0,"requests":[],"if_needed":[]},{"name":"verify","title":"read the disk back","limit":86400.0,"stall":10.0,"seconds":0.0,"boots":0,"requests":[],"if_needed":[]},{"name":"config","title":"write run-time config","limit":10.0,"stall":10.0,"seconds":2.0,"boots":0,"requests":[],"if_needed":[]},{"name":"eject","title":"eject media, clear the override","limit":25.0,"stall":null,"seconds":10.0,"boots":0,"requests":[{"method":"POST","path":"/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia","body":{}}],"if_needed":[{"method":"PATCH","path":"/redfish/v1/Systems/1","body":{"Boot":{"BootSourceOverrideTarget":"None","BootSourceOverrideEnabled":"Disabled"}}}]},{"name":"boot","title":"let the machine boot its disk","limit":10.0,"stall":null,"seconds":5.0,"boots":1,"requests":[],"if_needed":[]},{"name":"report","title":"new system reports","limit":20.0,"stall":null,"seconds":240.0,"boots":0,"requests":[],"if_needed":[]},{"name":"prove","title":"prove and record","limit":15.0,"stall":null,"seconds":5.0,"boots":0,"requests":[],"if_needed":[]}],"transfer":4194452,"slot":{"id":"Cd","uri":"/redfish/v1/Managers/1/VirtualMedia/Cd","media_types":["CD","DVD"],"inserted":false,"image":null,"by_action":true,"can_eject":true},"warnings":["the machine is on and will be reset without a shutdown","the disk''s content is not known to us: everything is written"],"created":1795179156.0054364}','{"by":"admin@controller"}','queued',1.79517915601703286171e+09,NULL,NULL,NULL,'',0);
CREATE TABLE "steps" (
   "run" TEXT,
   "seq" INTEGER,
   "name" TEXT,
   "attempts" INTEGER,
   "started" REAL,
   "finished" REAL,
   "outcome" TEXT,
   "summary" TEXT,
   "evidence" TEXT,
   "bytes" INTEGER,
   "earlier" TEXT,
   PRIMARY KEY ("run", "seq", "name")
);
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',0,'preflight',1,1.79517914550996088981e+09,1.79517914551778197287e+09,'done','Fake Fake 1 S0002','{"serial":"S0002","uuid":"00000000-0000-4000-8000-000000000002","model":"Fake 1","power":"On"}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',1,'media',1,1.79517914554570460323e+09,1.79517914557388472552e+09,'done','deployment r-20261120-1c6791tdd','{"deployment":"r-20261120-1c6791tdd"}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',2,'insert',1,1.7951791455858023167e+09,1.795179145592856884e+09,'done','in Cd','{"slot":"/redfish/v1/Managers/1/VirtualMedia/Cd","requests":[{"method":"POST","path":"/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia","body":{"Image":"http://127.0.0.1:@BMC@/m/***/boot.iso"}}]}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',3,'override',1,1.79517914560568237307e+09,1.79517914561727094649e+09,'done','Cd Once UEFI','{"override":true,"requests":[{"method":"PATCH","path":"/redfish/v1/Systems/1","body":{"Boot":{"BootSourceOverrideTarget":"Cd","BootSourceOverrideEnabled":"Once","BootSourceOverrideMode":"UEFI"}}}]}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',4,'power',1,1.79517914562075400351e+09,1.79517914566320776941e+09,'done','ForceRestart asked','{"power":"On","requests":[{"method":"POST","path":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset","body":{"ResetType":"ForceRestart"}}]}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',5,'check-in',1,1.79517914568235826492e+09,1.79517914579445409775e+09,'done','S0002 checked in','{"serial":"S0002","uuid":"00000000-0000-4000-8000-000000000002","disks":["/dev/vda simulated SIM-DISK-1 1099511627776"]}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',6,'write',1,1.79517914580590033524e+09,1.79517914586180424687e+09,'done','4.2 MB fetched','{}',4194452,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',7,'verify',1,1.7951791458780224323e+09,1.79517914588056707375e+09,'done','read back, equal: /dev/vda, 4 chunks fetched, 0 MB zeroed','{"report":{"disk":{"path":"/dev/vda","size":1099511627776,"logical_sector":512,"physical_sector":512,"model":"simulated","serial":"SIM-DISK-1","wwn":"","transport":"virtio","rotational":false,"removable":false,"read_only":false,"virtual":false,"by_path":"","signatures":[],"unusable":""},"digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","read_back":"4f36930756a9b7da5f73e9d5c8c57b9bb93b79175827f091477be6b8319e2aae","boot_id":"1aa170d9-f4b3-43a1-8aa3-feda6fa5a2cf","chunks":6,"fetched_chunks":4,"fetched_bytes":4194452,"kept_chunks":0,"zero_bytes":0,"seconds":{},"config_digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","efi_entries":[],"resumed":0,"fence":2,"notes":[],"changed":[]}}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',8,'config',1,1.79517914588380622861e+09,1.79517914589271211623e+09,'done','digest 823f17270da9','{"digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","efi_entries":[]}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',9,'eject',1,1.79517914591325306898e+09,1.79517914591858553886e+09,'done','media out, override cleared','{"requests":[{"method":"POST","path":"/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.EjectMedia","body":{}}]}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',10,'boot',1,1.79517914592418408393e+09,1.7951791460843482017e+09,'done','the agent reboots into the disk','{}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',11,'report',1,1.79517914609840273853e+09,1.79517914613555788988e+09,'done','web@1 on S0002','{"image_id":"web","image_version":"1","build_id":"b-web@1","serial":"S0002","boot_id":"df744bcb-59da-4b29-8348-d89361ff1f10","uuid":"00000000-0000-4000-8000-000000000002","config_digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","note":""}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6791tdd',12,'prove',1,1.79517914614068317411e+09,1.79517914615668964387e+09,'done','web@1 proven','{"proof":{"run":"r-20261120-1c6791tdd","at":1795179146.142918,"check_in":{"serial":"S0002","uuid":"00000000-0000-4000-8000-000000000002"},"disks":["/dev/vda simulated SIM-DISK-1 1099511627776"],"disk":"/dev/vda","digest":"sha256:f70eac551ed5bf1eff20b1121270971f59437a6017344a4540fd74e9038e3563","read_back":"4f36930756a9b7da5f73e9d5c8c57b9bb93b79175827f091477be6b8319e2aae","config_digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","system":{"image_id":"web","image_version":"1","build_id":"b-web@1","serial":"S0002","boot_id":"df744bcb-59da-4b29-8348-d89361ff1f10","uuid":"00000000-0000-4000-8000-000000000002","config_digest":"823f17270da90d79b082ea3be94e886286d5e2331b5a349fdaf1683818e595fd","note":""},"proof_by":"report","media_ejected":true,"override_cleared":true,"media_bytes":215536,"chunk_bytes":4194452}}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6gs1170',0,'preflight',1,1.79517915446820592881e+09,1.79517915448669838907e+09,'done','Fake Fake 1 S0001','{"serial":"S0001","uuid":"00000000-0000-4000-8000-000000000001","model":"Fake 1","power":"On"}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6gs1170',1,'media',1,1.79517915454602956771e+09,1.79517915460142970084e+09,'done','deployment r-20261120-1c6gs1170','{"deployment":"r-20261120-1c6gs1170"}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6gs1170',2,'insert',1,1.79517915462274408339e+09,1.79517915465355920798e+09,'done','in Cd','{"slot":"/redfish/v1/Managers/1/VirtualMedia/Cd","requests":[{"method":"POST","path":"/redfish/v1/Managers/1/VirtualMedia/Cd/Actions/VirtualMedia.InsertMedia","body":{"Image":"http://127.0.0.1:@BMC@/m/***/boot.iso"}}]}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6gs1170',3,'override',1,1.79517915467835950855e+09,1.79517915470138049124e+09,'done','Cd Once UEFI','{"override":true,"requests":[{"method":"PATCH","path":"/redfish/v1/Systems/1","body":{"Boot":{"BootSourceOverrideTarget":"Cd","BootSourceOverrideEnabled":"Once","BootSourceOverrideMode":"UEFI"}}}]}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6gs1170',4,'power',1,1.79517915472923898691e+09,1.79517915478147792817e+09,'done','ForceRestart asked','{"power":"On","requests":[{"method":"POST","path":"/redfish/v1/Systems/1/Actions/ComputerSystem.Reset","body":{"ResetType":"ForceRestart"}}]}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6gs1170',5,'check-in',1,1.79517915482605457306e+09,1.79517915497206377983e+09,'done','S0001 checked in','{"serial":"S0001","uuid":"00000000-0000-4000-8000-000000000001","disks":["/dev/vda simulated SIM-DISK-1 1099511627776"]}',0,'[]');
INSERT INTO "steps" VALUES('r-20261120-1c6gs1170',6,'write',1,1.79517915501098608965e+09,NULL,'running','','{}',0,'[]');
CREATE TABLE "workers" (
   "id" TEXT PRIMARY KEY,
   "pid" INTEGER,
   "hostname" TEXT,
   "since" REAL,
   "seen" REAL
);
INSERT INTO "workers" VALUES('worker-9a102280b7a7',24141,'controller',1.79517915435197258e+09,1.79517915541469526286e+09);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX "idx_runs_host_created"
    ON "runs" ("host", "created");
CREATE INDEX "idx_runs_status_created"
    ON "runs" ("status", "created");
CREATE UNIQUE INDEX "idx_deployments_token_hash"
    ON "deployments" ("token_hash");
CREATE UNIQUE INDEX "idx_deployments_proof_hash"
    ON "deployments" ("proof_hash");
CREATE UNIQUE INDEX "idx_deployments_media_hash"
    ON "deployments" ("media_hash");
CREATE UNIQUE INDEX "idx_deployments_chunk_hash"
    ON "deployments" ("chunk_hash");
CREATE INDEX "idx_deployments_host_created"
    ON "deployments" ("host", "created");
CREATE INDEX "idx_deployments_run"
    ON "deployments" ("run");
CREATE INDEX "idx_deployments_ended"
    ON "deployments" ("ended");
CREATE INDEX "idx_events_host_id"
    ON "events" ("host", "id");
CREATE INDEX "idx_events_run_id"
    ON "events" ("run", "id");
CREATE UNIQUE INDEX "idx_events_key"
    ON "events" ("key");
CREATE INDEX "idx_observations_host_kind_id"
    ON "observations" ("host", "kind", "id");
COMMIT;
