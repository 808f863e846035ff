//! Delayed messages with an id: publishing them, and taking them back at `amq.schedule`.

use std::sync::Arc;

use amqp::{Exception, ReplyCode};

use super::{Channel, Context, Mode};
use crate::message::{Message, StoredBy};
use crate::queue;
use crate::vhost::Cancelled;

impl Channel {
    /// Whether a message that is to be held back can be found by the id that it wants; if not, its publisher is
    /// told.
    pub(super) fn check_schedule_id(
        &mut self,
        context: &mut Context<'_>,
        message: &Message,
        mandatory: bool,
        delays: &queue::Handle,
        id: &[u8],
    ) -> Result<bool, Exception> {
        self.check_untransacted("a message with an x-schedule-id is published")?;
        let checked = context.vhost.check_schedule_id(delays, id);
        let refused = checked.map_err(|reason| self.refuse(context, message, mandatory, &reason));
        Ok(refused.is_ok())
    }

    /// A message is held back from now on, and can be found by its id.
    pub(super) fn schedule(
        &mut self,
        context: &mut Context<'_>,
        message: Message,
        delays: &queue::Handle,
        id: &[u8],
    ) {
        self.published(context);
        if let Some((message, operation, sync)) = context.vhost.schedule(delays, id, message) {
            context.batch.messages.tell_of(message, operation, sync);
        }
    }

    /// A message to `amq.schedule` has come.
    pub(super) fn ask_schedule(
        &mut self,
        context: &mut Context<'_>,
        message: Message,
        mandatory: bool,
        headers: &[u8],
    ) -> Result<(), Exception> {
        self.check_untransacted("a delayed message is cancelled")?;
        let asks = Arc::new(Message { stored_by: StoredBy::due(), ..message });
        match context.vhost.cancel_delayed(context.caller, &asks, headers)? {
            Cancelled::Done(told) => {
                self.published(context);
                if let Some((operation, sync)) = told {
                    context.batch.messages.tell_of(asks, operation, sync);
                }
            }
            Cancelled::Refused(reason) => self.refuse(context, &asks, mandatory, &reason),
        }
        Ok(())
    }

    /// A publish is not done: a mandatory one comes back with the reason, and it is nacked.
    fn refuse(&mut self, context: &mut Context<'_>, message: &Message, mandatory: bool, reason: &str) {
        tracing::debug!(vhost = %context.vhost.name(), exchange = message.exchange(), reason, "publish refused");
        if mandatory {
            self.return_message(context, message, ReplyCode::NoRoute, reason);
        }
        let origin = self.published(context);
        if matches!(self.mode, Mode::Confirm(_)) {
            context.batch.messages.refuse(origin);
        }
    }

    fn check_untransacted(&self, what: &str) -> Result<(), Exception> {
        if !matches!(self.mode, Mode::Tx(_)) {
            return Ok(());
        }
        let text = format!("{what} at once, which no transaction can take back; use a channel without one");
        Err(Exception::new(ReplyCode::PreconditionFailed, text))
    }
}
