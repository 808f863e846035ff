//! Delayed messages with an id: publishing them, and taking them back at `amq.schedule`.

use std::sync::Arc;

use amqp::{Exception, ReplyCode};

use super::publish::Delay;
use super::{Channel, Context, Mode};
use crate::message::{Message, StoredBy};
use crate::queue::With;
use crate::vhost::Cancelled;

impl Channel {
    /// A message is held back from now on, and can be found by its id, unless another has that.
    pub(super) fn schedule(
        &mut self,
        context: &mut Context<'_>,
        message: Message,
        mandatory: bool,
        delay: &Delay,
        id: &[u8],
        with: Option<With>,
    ) {
        let vhost = context.vhost;
        let scheduled = match vhost.schedule(&delay.queue, id, message) {
            Ok(scheduled) => scheduled,
            // What went with the message learns by being dropped that nothing came of it.
            Err(taken) => return self.refuse(context, &taken.0, mandatory, &taken.1),
        };
        let origin = self.published(context);
        match scheduled {
            Some((message, operations, sync)) => {
                context.batch.messages.tell_of(message, operations, with, sync);
            }
            None => with.into_iter().for_each(|with| context.batch.messages.add_with(with, origin)),
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
                    context.batch.messages.tell_of(asks, vec![operation], None, sync);
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

    pub(super) fn check_untransacted(&self, what: &str) -> Result<(), Exception> {
        if !matches!(self.mode, Mode::Tx(_)) {
            return Ok(());
        }
        let text = format!("{what} at once, which no transaction can take back; use a channel without one");
        Err(Exception::new(ReplyCode::PreconditionFailed, text))
    }
}
