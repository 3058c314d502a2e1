-- The queue of one endpoint, by when it is due: what is due next is found without sorting all that waits. A receiver that is
-- down for days has hundreds of thousands of rows here.

CREATE INDEX webhook_delivery_queue ON webhook_delivery (tenant_id, endpoint_id, next_at, position) WHERE state = 'pending';
DROP INDEX webhook_delivery_due;
